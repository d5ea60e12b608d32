"""Boxes on pictures."""

import numpy as np

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


def test_neighbouring_classes_differ() -> None:
    colors = np.array([class_color(label) for label in range(12)])
    assert np.abs(colors[1:] - colors[:-1]).sum(axis=1).min() > 100
