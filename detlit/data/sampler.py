"""The training sampler: each index says which epoch it is drawn for, so that workers need no other state."""

from collections.abc import Iterator, Sized
from typing import NamedTuple

from torch import distributed
from torch.utils.data.distributed import DistributedSampler

__all__ = ["DetectionSampler", "SampleIndex"]


class SampleIndex(NamedTuple):
    """Position of an image in its data set, and the epoch it is drawn for: the random state follows from the two.

    Persistent workers keep the data set they started with, so what changes during a run travels in the index.
    """

    dataset_index: int
    epoch: int


class DetectionSampler(DistributedSampler[SampleIndex]):
    """Shuffle a data set over the ranks and yield :class:`SampleIndex`, all ranks the same number.

    Lightning calls :meth:`set_epoch` and leaves instances of ``DistributedSampler`` alone; a sampler of any other type
    would be replaced under DDP. Works without a process group too, as the only rank.

    Args:
        dataset: what is sampled; only its length matters.
        seed: of the order; the same on all ranks.
        shuffle: draw a new order each epoch.
    """

    def __init__(self, dataset: Sized, seed: int = 0, shuffle: bool = True) -> None:
        in_group = distributed.is_available() and distributed.is_initialized()
        super().__init__(
            dataset,  # type: ignore[arg-type]
            num_replicas=distributed.get_world_size() if in_group else 1,
            rank=distributed.get_rank() if in_group else 0,
            shuffle=shuffle,
            seed=seed,
            drop_last=True,
        )

    def __iter__(self) -> Iterator[SampleIndex]:
        """Yield this rank's indices of the epoch set by :meth:`set_epoch`."""
        for index in super().__iter__():
            yield SampleIndex(int(index), self.epoch)  # type: ignore[call-overload]
