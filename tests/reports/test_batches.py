"""Batches as pictures."""

from typing import Any

import numpy as np
import pytest
import torch

from detlit.reports import batches as module
from detlit.reports.batches import Boxes, Shown, batch_picture, pixels_of
from detlit.reports.draw import class_color, draw_boxes

GREY = np.full((60, 80, 3), 128, dtype=np.uint8)
ONE = Boxes(np.array([[20, 15, 60, 45]], np.float32), [1])


def has_color(picture: np.ndarray, label: int) -> bool:
    return bool((picture == class_color(label)).all(axis=2).any())


def test_uint8_stays_and_floats_are_scaled() -> None:
    image = torch.arange(24, dtype=torch.uint8).reshape(3, 2, 4)
    assert (pixels_of(image) == image.permute(1, 2, 0).numpy()).all()
    assert (pixels_of(image.float() / 255) == image.permute(1, 2, 0).numpy()).all()
    assert pixels_of(torch.full((1, 2, 2), 0.5)).tolist() == np.full((2, 2, 3), 128).tolist()


def test_a_normalised_image_is_stretched_to_black_and_white() -> None:
    pixels = pixels_of(torch.linspace(-2, 2, 12).reshape(3, 2, 2))
    assert (pixels.min(), pixels.max()) == (0, 255)


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (3, 3), (4, 2), (6, 3), (8, 4), (9, 3), (16, 4)])
def test_grids_have_few_empty_cells(count: int, columns: int) -> None:
    assert module._columns(count) == columns


def test_boxes_are_drawn_where_they_are_in_the_enlarged_image() -> None:
    picture = batch_picture([Shown(GREY, "a.jpg", [ONE])], ["x", "y"], "title", side=160)
    cell = picture[62 + 22 :, 12 : 12 + 160]
    assert tuple(cell[60, 40]) == class_color(1)  # the left side at 20, twice
    assert tuple(cell[60, 60]) == (128, 128, 128)
    assert not has_color(picture, 0)


def test_halves_stand_beside_each_other_and_say_what_they_show(monkeypatch: pytest.MonkeyPatch) -> None:
    words: list[str] = []
    write = module._write

    def spy(strip: np.ndarray, text: str, *rest: Any, **more: Any) -> int:
        words.append(text)
        return write(strip, text, *rest, **more)

    monkeypatch.setattr(module, "_write", spy)
    found = Boxes(ONE.xyxy, [0], [0.9], total=7)
    picture = batch_picture([Shown(GREY, "a.jpg", [ONE, found])] * 3, ["x", "y"], "title", ("objects", "detections"))
    assert has_color(picture, 0)
    assert has_color(picture, 1)
    assert {"title", "a.jpg", "1 object", "the best 1 of 7 detections", "x", "y"} <= set(words)
    assert picture.shape[1] <= 1920


def test_few_boxes_have_captions_and_many_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    captions: list[str] = []

    def spy(
        image: np.ndarray, boxes: np.ndarray, labels: list[int], names: list[str], scores: list[float] | None
    ) -> np.ndarray:
        captions.extend(names[label] for label in labels)
        return draw_boxes(image, boxes, labels, names, scores)

    monkeypatch.setattr(module, "draw_boxes", spy)
    crowd = Boxes(np.repeat(ONE.xyxy, 2, axis=0), [1, 5], iscrowd=[True, False])
    batch_picture([Shown(GREY, "a", [crowd])], ["x", "y"], "title")
    assert captions == ["y (crowd)", "class_5"]
    batch_picture([Shown(GREY, "a", [Boxes(np.repeat(ONE.xyxy, 11, axis=0), [1] * 11)])], ["x", "y"], "title")
    assert len(captions) == 2


def test_images_without_boxes_and_long_names_and_many_classes_fit() -> None:
    many = Boxes(np.repeat(ONE.xyxy, 80, axis=0), list(range(80)))
    shown = [Shown(GREY, "a" * 300, []), Shown(GREY[:10], "", [many])]
    picture = batch_picture(shown, [f"class number {label}" for label in range(80)], "t" * 500, side=200)
    assert picture.dtype == np.uint8
    assert picture.shape[1] == 560
    assert module._abridged("a" * 300, 100).count("a") < 30
    assert module._abridged("short", 100) == "short"


def test_the_image_itself_is_left_alone() -> None:
    batch_picture([Shown(GREY, "a", [ONE])], ["x", "y"], "title")
    assert (GREY == 128).all()
