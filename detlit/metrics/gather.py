"""Arrays from every rank, however unevenly they are spread."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed

__all__ = ["gather_arrays", "is_distributed"]


def is_distributed() -> bool:
    """Tell whether there is more than one process to talk to."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def gather_arrays(arrays: Sequence[NDArray[Any]], device: torch.device) -> list[list[NDArray[Any]]]:
    """Return the arrays of each rank, in rank order; every rank must call it.

    Two collectives, whatever the number of arrays: how many rows everyone has, and the rows, as bytes.

    Args:
        arrays: each ``(N, columns)``, of 8-byte types first; ``N`` may differ between ranks and be 0.
        device: where the process group communicates.
    """
    if not is_distributed():
        return [list(arrays)]
    world_size = distributed.get_world_size()
    mine = torch.tensor([len(array) for array in arrays], device=device)
    counts = [torch.empty_like(mine) for _ in range(world_size)]
    distributed.all_gather(counts, mine)
    rows = torch.stack(counts).tolist()

    row_bytes = [array.itemsize * array.shape[1] for array in arrays]
    longest = max(sum(count * size for count, size in zip(counts, row_bytes, strict=True)) for counts in rows)
    payload = np.zeros(max(longest, 1), dtype=np.uint8)
    packed = np.concatenate([np.ascontiguousarray(array).view(np.uint8).ravel() for array in arrays])
    payload[: len(packed)] = packed
    sent = torch.from_numpy(payload).to(device)
    received = [torch.empty_like(sent) for _ in range(world_size)]
    distributed.all_gather(received, sent)
    return [_unpack(data.cpu().numpy(), counts, arrays) for data, counts in zip(received, rows, strict=True)]


def _unpack(data: NDArray[np.uint8], counts: Sequence[int], like: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Return the arrays packed into ``data``, of these numbers of rows and with the types and columns of ``like``."""
    arrays, start = [], 0
    for count, array in zip(counts, like, strict=True):
        end = start + count * array.itemsize * array.shape[1]
        arrays.append(data[start:end].view(array.dtype).reshape(count, array.shape[1]))
        start = end
    return arrays
