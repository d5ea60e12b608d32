import torch

from detlit.ops.anchors import make_anchor_points
from detlit.structures import Level


def test_anchor_points_are_cell_centres_in_level_order() -> None:
    points, strides = make_anchor_points([Level(1, 2, 16), Level(2, 1, 8)])
    assert points.tolist() == [[8, 8], [24, 8], [4, 4], [4, 12]]
    assert strides.tolist() == [[16], [16], [8], [8]]


def test_yolo_nas_at_640_has_8400_anchor_points() -> None:
    levels = [Level(640 // stride, 640 // stride, stride) for stride in (8, 16, 32)]
    points, strides = make_anchor_points(levels, device="cpu", dtype=torch.float64)
    assert points.shape == (8400, 2)
    assert strides.shape == (8400, 1)
    assert points.dtype == strides.dtype == torch.float64
