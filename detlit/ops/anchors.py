"""Anchor points: the cell centres of the feature maps a head predicts on."""

from collections.abc import Sequence

import torch
from torch import Tensor

from detlit.structures import Level

__all__ = ["make_anchor_points"]


def make_anchor_points(
    levels: Sequence[Level],
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """Return the centre of every cell and its stride, levels one after another, rows from top to bottom.

    The centre of column ``j``, row ``i`` is ``((j + 0.5) * stride, (i + 0.5) * stride)``.

    Returns:
        ``anchor_points (A, 2)`` xy pixels and ``strides (A, 1)`` pixels per cell.
    """
    points, strides = [], []
    for height, width, stride in levels:
        x = (torch.arange(width, device=device, dtype=dtype) + 0.5) * stride
        y = (torch.arange(height, device=device, dtype=dtype) + 0.5) * stride
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        points.append(torch.stack((grid_x, grid_y), dim=-1).reshape(-1, 2))
        strides.append(torch.full((height * width, 1), float(stride), device=device, dtype=dtype))
    return torch.cat(points), torch.cat(strides)
