"""One warp for images and boxes, against its slow twin."""

import json
from pathlib import Path

import numpy as np
import pytest

from detlit.data.transforms import letterbox
from detlit.data.transforms.warp import draw_image, visible_boxes, warp_boxes
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
    [
        np.eye(3),
        TURNED,
        np.array([[-1.0, 0, 40], [0, 1, 0], [0, 0, 1]]),
        np.diag([2.5, 1.5, 1.0]),
        np.array([[0.6, 0, 7.3], [0, 0.7, -4.8], [0, 0, 1]]),
        np.array([[-1.7, 0, 30.2], [0, -1.3, 21.1], [0, 0, 1]]),
        np.array([[3.1, 0, -40.2], [0, 2.2, -20.9], [0, 0, 1]]),
    ],
    ids=["identity", "turned", "mirrored", "enlarged", "shrunk", "upside down", "cut off"],
)
def test_draw_image_equals_the_slow_twin(matrix: np.ndarray) -> None:
    image, canvas = smooth_image(20, 30), np.full((32, 40, 3), 114, dtype=np.uint8)
    expected = canvas.copy()
    drawn = draw_image(canvas, image, matrix)
    expected, sure = reference.draw_image(expected, image, drawn)
    assert sure.mean() > 0.8
    # OpenCV's warp rounds source positions to 1/32 pixel, its resize takes the edge of the visible part for the image's
    np.testing.assert_allclose(canvas[sure], expected[sure], atol=6.0)
    assert np.abs(canvas[sure] - expected[sure]).mean() < 0.5


def test_the_map_as_drawn_is_near_the_map_asked_for() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        scale_x, scale_y = generator.uniform(0.3, 3, 2) * generator.choice([-1, 1], 2)
        matrix = np.array(
            [[scale_x, 0, generator.uniform(-40, 80)], [0, scale_y, generator.uniform(-40, 80)], [0, 0, 1]]
        )
        canvas = np.full((64, 96, 3), 114, dtype=np.uint8)
        drawn = draw_image(canvas, image_u8(40, 50), matrix)
        corners = np.array([[0, 0, 1], [50, 0, 1], [0, 40, 1], [50, 40, 1]]).T
        wanted, got = (matrix @ corners)[:2], (drawn @ corners)[:2]
        on_canvas = [np.clip(points, 0, [[96], [64]]) for points in (wanted, got)]
        assert np.abs(on_canvas[0] - on_canvas[1]).max() < 0.5 + 0.5 * max(abs(scale_x), abs(scale_y)) + 1e-9


@pytest.mark.parametrize("offset", [(-200.0, 0.0), (0.0, 300.0), (96.0, 0.0), (-49.9, 0.0)])
def test_an_image_beyond_the_canvas_leaves_no_trace(offset: tuple[float, float]) -> None:
    canvas = np.full((64, 96, 3), 114, dtype=np.uint8)
    draw_image(canvas, image_u8(40, 50), np.array([[1.0, 0, offset[0]], [0, 1, offset[1]], [0, 0, 1]]))
    assert (canvas == 114).all()


def test_mirroring_is_exact() -> None:
    image, canvas = image_u8(32, 64), np.zeros((32, 64, 3), dtype=np.uint8)
    draw_image(canvas, image, np.array([[-1.0, 0, 64], [0, -1, 32], [0, 0, 1]]))
    np.testing.assert_array_equal(canvas, image[::-1, ::-1])


def test_the_letterbox_as_a_drawing_is_the_letterbox() -> None:
    preprocessing = Preprocessing(size=(64, 96))
    image, canvas = smooth_image(40, 50), np.full((64, 96, 3), 114, dtype=np.uint8)
    scale_x, scale_y, left, top = preprocessing.geometry(40, 50)
    matrix = np.array([[scale_x, 0, left], [0, scale_y, top], [0, 0, 1]])
    np.testing.assert_allclose(draw_image(canvas, image, matrix), matrix)
    np.testing.assert_array_equal(canvas, letterbox(image, preprocessing))


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
