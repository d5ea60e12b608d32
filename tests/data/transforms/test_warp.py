"""One warp for images and boxes, against its slow twin."""

import json
from pathlib import Path

import numpy as np
import pytest

from detlit.data.transforms import letterbox
from detlit.data.transforms.letterbox import letterbox_matrix
from detlit.data.transforms.warp import visible_boxes, warp_boxes, warp_image
from detlit.structures import Preprocessing
from tests.golden_recipe import image_u8
from tests.reference import transforms as reference

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "transforms.json").read_text())["affine"]
TURNED = np.array([[0.8, 0.3, 4.0], [-0.2, 1.1, 3.5], [0.0, 0.0, 1.0]])


def smooth_image(height: int, width: int) -> np.ndarray:
    rows, columns = np.indices((height, width))
    return np.stack([3 * rows + columns, 5 * columns, 200 - 2 * rows], axis=2).astype(np.uint8)


@pytest.mark.parametrize(
    "matrix",
    [np.eye(3), TURNED, np.array([[-1.0, 0, 40], [0, 1, 0], [0, 0, 1]]), np.diag([2.5, 1.5, 1.0])],
    ids=["identity", "turned", "mirrored", "enlarged"],
)
def test_warp_image_equals_the_slow_twin(matrix: np.ndarray) -> None:
    image = smooth_image(20, 30)
    warped = warp_image(image, matrix, 32, 40, pad_value=114)
    expected = reference.warp_image(image, matrix, 32, 40, pad_value=114)
    # OpenCV rounds source positions to 1/32 pixel: up to 4 levels where the padding (114) meets the image
    np.testing.assert_allclose(warped, expected, atol=6.0)
    assert np.abs(warped - expected).mean() < 0.5


def test_mirroring_is_exact() -> None:
    image = image_u8(32, 64)
    matrix = np.array([[-1.0, 0, 64], [0, -1, 32], [0, 0, 1]])
    np.testing.assert_array_equal(warp_image(image, matrix, 32, 64, 0), image[::-1, ::-1])


def test_the_letterbox_as_a_warp_is_the_letterbox() -> None:
    preprocessing = Preprocessing(size=(64, 96))
    image = smooth_image(40, 50)
    warped = warp_image(image, letterbox_matrix(preprocessing, 40, 50), 64, 96, 114).astype(int)
    inner = (slice(2, -2), slice(10, -10))  # at its edges the warp blends with the padding
    np.testing.assert_allclose(warped[inner], letterbox(image, preprocessing)[inner], atol=3)


def test_warp_boxes_equals_the_slow_twin() -> None:
    boxes = np.array([[1.0, 2.0, 5.0, 9.0], [0.0, 0.0, 30.0, 20.0]])
    expected = [reference.warp_box(box, TURNED) for box in boxes]
    np.testing.assert_allclose(warp_boxes(boxes, TURNED), expected)
    assert warp_boxes(np.zeros((0, 4)), TURNED).shape == (0, 4)


def test_boxes_equal_golden_ones() -> None:
    boxes = warp_boxes(np.array(GOLDEN["boxes"]), np.vstack([GOLDEN["matrix"], [0, 0, 1]]))
    clipped, kept = visible_boxes(boxes, 640, 640)
    np.testing.assert_allclose(clipped, GOLDEN["warped_640x640"], atol=1e-4)
    assert kept.all()


def test_boxes_are_clipped_to_a_canvas_that_is_not_square() -> None:
    boxes = np.array([[500.0, 100.0, 620.0, 200.0], [500.0, 300.0, 620.0, 400.0]])
    clipped, kept = visible_boxes(boxes, height=320, width=640)
    np.testing.assert_array_equal(clipped, [[500, 100, 620, 200], [500, 300, 620, 320]])
    assert kept.tolist() == [True, True]


@pytest.mark.parametrize(
    ("box", "kept"),
    [
        ((0, 0, 2, 50), False),  # not wider than 2 pixels
        ((0, 0, 2.5, 40), True),
        ((0, 0, 2.5, 50), False),  # 20 times as long as wide
        ((-95, 0, 10, 20), False),  # a tenth of it, less a little, is visible
        ((-80, 0, 10, 20), True),
        ((-50, 0, -10, 20), False),
    ],
)
def test_what_shows_too_little_is_left_out(box: tuple[float, ...], kept: bool) -> None:
    assert visible_boxes(np.array([box], dtype=float), 100, 100)[1].tolist() == [kept]
