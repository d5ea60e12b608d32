"""Rows from every rank, however unevenly they are spread."""

import torch
from torch import Tensor, distributed

__all__ = ["gather_rows", "is_distributed"]


def is_distributed() -> bool:
    """Tell whether there is more than one process to talk to."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def gather_rows(rows: Tensor, device: torch.device) -> list[Tensor]:
    """Return the table of each rank, in rank order, on the CPU; every rank must call it.

    Args:
        rows: ``(N, columns)``; ``N`` may differ between ranks and be 0, which ``all_gather`` alone cannot do.
        device: where the process group communicates.
    """
    if not is_distributed():
        return [rows.cpu()]
    world_size = distributed.get_world_size()
    counts = torch.zeros(world_size, dtype=torch.int64, device=device)
    counts[distributed.get_rank()] = len(rows)
    distributed.all_reduce(counts)
    sizes: list[int] = counts.tolist()
    padded = rows.new_zeros(max(*sizes, 1), rows.shape[1], device=device)
    padded[: len(rows)] = rows.to(device)
    gathered = [torch.empty_like(padded) for _ in range(world_size)]
    distributed.all_gather(gathered, padded)
    return [table[:size].cpu() for table, size in zip(gathered, sizes, strict=True)]
