"""Boxes on pictures."""

import cv2
import numpy as np
import pytest

from detlit.reports.draw import class_color, draw_boxes


def test_a_box_is_drawn_in_its_colour_and_the_image_is_left_alone() -> None:
    image = np.full((100, 120, 3), 128, dtype=np.uint8)
    drawn = draw_boxes(image, np.array([[20.0, 40.0, 80.0, 90.0]]), [2], ["a", "b", "c"], [0.5])
    assert (image == 128).all()
    assert tuple(drawn[65, 20]) == class_color(2)
    assert tuple(drawn[65, 50]) == (128, 128, 128)


def test_captions_stay_inside() -> None:
    image = np.zeros((40, 60, 3), dtype=np.uint8)
    drawn = draw_boxes(image, np.array([[50.0, 0.0, 60.0, 10.0]]), [0], ["quite long"], [1.0])
    assert drawn.shape == image.shape
    assert drawn[:14].any()


def test_nothing_to_draw() -> None:
    image = np.arange(300, dtype=np.uint8).reshape(10, 10, 3)
    assert (draw_boxes(image, np.zeros((0, 4)), [], [], []) == image).all()


def test_eighty_classes_have_colours_that_the_eye_tells_apart() -> None:
    """In CIELAB, where a distance of 2 can just be seen and 10 at a glance."""
    colors = np.array([class_color(label) for label in range(80)], dtype=np.float32)
    lab = cv2.cvtColor(colors[None] / 255, cv2.COLOR_RGB2LAB)[0]
    distances = np.linalg.norm(lab[:, None] - lab, axis=-1)[~np.eye(80, dtype=bool)]
    assert distances.min() > 15
    first = np.linalg.norm(lab[:12, None] - lab[:12], axis=-1)[~np.eye(12, dtype=bool)]
    assert first.min() > 45
    assert class_color(96) == class_color(0)


@pytest.mark.parametrize(("width", "height"), [(3840, 2160), (320, 240)])
def test_captions_are_legible_at_every_size(width: int, height: int) -> None:
    """A strip is at least 12 pixels high, and at most a fifteenth of the image."""
    image = np.zeros((height, width, 3), dtype=np.uint8)
    drawn = draw_boxes(image, np.array([[width / 4, height / 2, width / 2, height * 0.9]]), [0], ["person"], [0.5])
    strip = (drawn == class_color(0)).all(axis=2)[: height // 2, width // 4 : width // 2].any(axis=1).sum()
    assert max(12, 0.015 * height) < strip <= height / 15
