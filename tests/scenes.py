"""Batches that a careless assigner gets wrong, for hypothesis to search."""

from typing import NamedTuple

import torch
from hypothesis import strategies as st

from detlit.ops.anchors import make_anchor_points
from detlit.structures import Level, RawPredictions, Target


class Scene(NamedTuple):
    """Predictions in float64 and one target per image."""

    predictions: RawPredictions
    targets: list[Target]


@st.composite
def scenes(draw: st.DrawFn, sides: tuple[int, ...] = (32, 64, 96, 160)) -> Scene:
    """Draw up to three images with crowds, duplicates, tiny, empty and huge boxes, in, across and outside the image."""
    height, width = draw(st.sampled_from(sides)), draw(st.sampled_from(sides))
    num_classes, reg_max = draw(st.sampled_from((1, 3))), draw(st.sampled_from((7, 16)))
    targets = [draw(_targets(height, width, num_classes)) for _ in range(draw(st.integers(1, 3)))]
    return Scene(draw(_predictions(len(targets), height, width, num_classes, reg_max)), targets)


@st.composite
def _targets(draw: st.DrawFn, height: int, width: int, num_classes: int) -> Target:
    count = draw(st.sampled_from((0, 1, 2, 3, 5, 5, 12, 40)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    extent = torch.tensor([width, height]).double()
    centers = torch.rand(count, 2, generator=generator).double() * 1.6 * extent - 0.3 * extent
    scale = 10 ** torch.empty(count, 1).uniform_(-0.5, 2.5, generator=generator).double()
    sizes = scale * (0.3 + torch.rand(count, 2, generator=generator).double())
    boxes = torch.cat((centers - sizes / 2, centers + sizes / 2), dim=1)
    if draw(st.booleans()):  # sides through cell centres and borders, equal distances, empty boxes
        boxes = (boxes / 4).round() * 4
    if draw(st.booleans()):
        boxes = boxes.clamp(min=0).minimum(extent.repeat(2))
    if count > 2 and draw(st.booleans()):
        boxes[count // 2 :] = boxes[: count - count // 2].clone()
    labels = torch.randint(num_classes, (count,), generator=generator)
    crowd = torch.rand(count, generator=generator) < draw(st.sampled_from((0.0, 0.3)))
    return Target(boxes=boxes.float(), labels=labels, iscrowd=crowd)


@st.composite
def _predictions(
    draw: st.DrawFn, batch_size: int, height: int, width: int, num_classes: int, reg_max: int
) -> RawPredictions:
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    levels = tuple(Level(height // stride, width // stride, stride) for stride in draw(st.permutations((8, 16, 32))))
    points, strides = make_anchor_points(levels, dtype=torch.float64)
    shape = (batch_size, len(points))
    cls_logits = torch.randn(*shape, num_classes, generator=generator, dtype=torch.float64) * 2 - 1
    peak = draw(st.sampled_from((0.5, 3.0))) * torch.rand(*shape, 4, 1, generator=generator, dtype=torch.float64)
    reg_logits = -((torch.arange(reg_max + 1) - peak) ** 2).flatten(2)
    if draw(st.sampled_from((False, False, False, True))):  # what a new head predicts: the same everywhere
        cls_logits, reg_logits = torch.full_like(cls_logits, -4.6), torch.zeros_like(reg_logits)
    return RawPredictions(cls_logits, reg_logits, points, strides, levels)
