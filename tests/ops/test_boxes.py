import pytest
import torch

from detlit.ops.boxes import (
    aligned_giou,
    boxes_to_distances,
    decode_boxes,
    distances_to_boxes,
    expected_distances,
    iou_of_sides,
)
from tests.reference import boxes as reference


def random_boxes(count: int, seed: int) -> torch.Tensor:
    corners = torch.rand(count, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 20
    return torch.cat((corners.amin(1), corners.amax(1)), dim=1)


def pairwise_iou(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return iou_of_sides(a.T[..., None], b.T[:, None])


def test_expected_distance_of_a_flat_distribution_is_half_of_reg_max() -> None:
    assert expected_distances(torch.zeros(1, 4 * 17)).tolist() == [[8.0] * 4]


def test_decode_places_sides_in_the_order_left_top_right_bottom() -> None:
    logits = torch.full((4, 17), -1e4)
    for side, distance in enumerate((1, 2, 3, 4)):
        logits[side, distance] = 0
    boxes = decode_boxes(logits.reshape(1, -1), torch.tensor([[100.0, 50.0]]), torch.tensor([[8.0]]))
    assert boxes.tolist() == [[92, 34, 124, 82]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_decoded_in_float32_even_under_autocast(dtype: torch.dtype) -> None:
    logits = torch.randn(5, 68).to(dtype)
    points, strides = torch.rand(5, 2) * 640, torch.full((5, 1), 32.0)
    expected = decode_boxes(logits.float(), points, strides)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(decode_boxes(logits, points, strides), expected, rtol=0, atol=0)


def test_distances_and_boxes_are_inverse() -> None:
    boxes, points = random_boxes(10, 0), torch.rand(10, 2, dtype=torch.float64) * 20
    torch.testing.assert_close(distances_to_boxes(boxes_to_distances(boxes, points), points), boxes)


def test_overlaps_equal_the_slow_twin() -> None:
    a, b = random_boxes(30, 1), random_boxes(30, 2)
    expected = [[reference.iou(x, y) for y in b.tolist()] for x in a.tolist()]
    torch.testing.assert_close(pairwise_iou(a, b), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)
    aligned = [reference.giou(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    torch.testing.assert_close(aligned_giou(a, b), torch.tensor(aligned, dtype=torch.float64), rtol=1e-12, atol=1e-15)


def test_overlaps_of_hand_sized_boxes() -> None:
    a, b = torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[1.0, 0.0, 3.0, 2.0]])
    assert pairwise_iou(a, b).item() == pytest.approx(2 / 6)
    assert aligned_giou(a, b).item() == pytest.approx(2 / 6)
    assert aligned_giou(a, a).item() == pytest.approx(1)
    assert aligned_giou(a, a + 3).item() == pytest.approx(-17 / 25)


def test_empty_boxes_do_not_overlap() -> None:
    nothing = torch.zeros(1, 4)
    assert pairwise_iou(nothing, nothing).item() == 0
