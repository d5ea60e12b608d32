import numpy as np
import pytest
import torch

from detlit.assigners import ATSSAssigner
from detlit.assigners.grid import cells_inside
from detlit.assigners.matching import decode_at, first_largest, resolve_claims
from detlit.ops.anchors import make_anchor_points
from detlit.ops.boxes import decode_boxes
from detlit.ops.targets import collect_ground_truth
from detlit.structures import Level, RawPredictions, Target
from tests.fake_predictions import make_predictions

LEVELS = (Level(4, 6, 8), Level(2, 3, 16), Level(1, 2, 32))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_first_largest_takes_the_lowest_column_of_equal_values(dtype: torch.dtype) -> None:
    values = torch.tensor([[1, 3, 1, 1, 2, -1], [0, 0, 0, 0, 0, -1], [1e-40, 0, 2e-40, 0, 0, -1]], dtype=dtype)
    assert first_largest(values, 3).sort(1).values.tolist() == [[0, 1, 4], [0, 1, 2], [0, 1, 2]]
    wide = torch.randint(4, (20, 300), generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = [sorted(range(300), key=lambda i: (-row[i], i))[:13] for row in wide.tolist()]
    assert first_largest(wide, 13).sort(1).values.tolist() == [sorted(row) for row in expected]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_decode_at_is_decode_boxes_at_some_positions(dtype: torch.dtype) -> None:
    predictions = make_predictions(64)._replace(reg_logits=torch.randn(2, 84, 4 * 9).to(dtype))
    positions = torch.tensor([0, 167, 5, 84, 80])
    boxes = decode_boxes(predictions.reg_logits, predictions.anchor_points, predictions.strides).flatten(0, 1)
    decoded = decode_at(predictions, positions).T
    torch.testing.assert_close(decoded, boxes[positions])
    assert decoded.dtype == torch.promote_types(dtype, torch.float32)


def test_contested_anchor_goes_to_the_largest_overlap_of_all_objects() -> None:
    """Object 2 claims nothing and overlaps anchor point 1 most; object 3 overlaps as much, and comes later."""
    boxes = torch.tensor([[0.0, 0, 8, 8], [0, 0, 9, 9], [0, 0, 20, 20], [0, 0, 20, 20], [0, 0, 8, 8]])
    predicted = torch.tensor([[0.0, 0, 8, 8], [0, 0, 20, 20], [0, 0, 1, 1]])
    position, objects = torch.tensor([[0, 1], [1, 0], [6, 2], [6, 6]]), torch.tensor([[0, 0], [1, 1], [0, 0], [2, 2]])

    def owners(crowd: list[bool]) -> list[list[int]]:
        target = Target(boxes=boxes[:4], labels=torch.zeros(4), iscrowd=torch.tensor(crowd))
        other = Target(boxes=boxes[4:], labels=torch.zeros(1))
        truth = collect_ground_truth([target, other], 1, torch.zeros(2, 1))
        found = resolve_claims(position, objects, boxes, truth, 3, lambda index: predicted[index % 3].T.contiguous())
        return [column.tolist() for column in found]

    assert owners([False] * 4) == [[0, 1, 2], [0, 2, 0]]
    assert owners([False, False, True, False]) == [[0, 1, 2], [0, 3, 0]]
    assert owners([False, False, True, True]) == [[0, 1, 2], [0, 1, 0]]


def test_cells_inside_are_those_whose_centres_are() -> None:
    generator = np.random.default_rng(0)
    boxes = generator.integers(-3, 15, (200, 4)) * 4.0  # many sides go through centres
    boxes[::5] += generator.uniform(-4, 4, (40, 4))
    rectangles = cells_inside(boxes, LEVELS)
    images = generator.integers(3, size=200)
    covered: set[int] = set()
    for i, (left, top, right, bottom) in enumerate(boxes):
        expected, anchor = [], 0
        for height, width, stride in LEVELS:
            for y in range(height):
                for x in range(width):
                    if left < (x + 0.5) * stride < right and top < (y + 0.5) * stride < bottom:
                        expected.append(anchor)
                    anchor += 1
        assert rectangles.counts()[i] == len(expected)
        starts, lengths = rectangles.runs(np.array([i, i]), np.array([100, 300]), LEVELS, 40)
        cells = [start + step for start, length in zip(starts, lengths, strict=True) for step in range(length)]
        assert len(cells) == 80
        assert [cell - 100 for cell in cells[: len(expected)]] == expected
        assert [cell - 300 for cell in cells[40 : 40 + len(expected)]] == expected
        covered |= {int(images[i]) * 32 + cell for cell in expected}
    assert rectangles.covered(images, 3, LEVELS).tolist() == sorted(covered)


def test_atss_takes_the_only_candidate_an_object_has() -> None:
    """One level and ``topk=1``: the overlap equals its mean, and a deviation of one number is none."""
    level = Level(8, 8, 8)
    points, strides = make_anchor_points([level])
    predictions = RawPredictions(torch.zeros(1, 64, 3), torch.zeros(1, 64, 4 * 17), points, strides, (level,))
    target = Target(boxes=torch.tensor([[9.0, 9.0, 30.0, 30.0]]), labels=torch.tensor([1]))
    truth = collect_ground_truth([target], 3, like=predictions.reg_logits)
    assert ATSSAssigner(topk=1)(predictions, truth).anchor.tolist() == [2 * 8 + 2]
