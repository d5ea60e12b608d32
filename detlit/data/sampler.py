"""The training sampler: each index says what it is drawn for, so that workers need no other state."""

from collections.abc import Iterator, Sequence, Sized
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import distributed
from torch.utils.data.distributed import DistributedSampler

from detlit.errors import ConfigurationError

__all__ = ["DetectionSampler", "SampleIndex", "repeat_factors"]


class SampleIndex(NamedTuple):
    """Position of an image in its data set, and what it is drawn for: the random state follows from it.

    Persistent workers keep the data set they started with, so what changes during a run travels in the index.

    Attributes:
        dataset_index: position in the data set.
        epoch: the epoch it is drawn for.
        repeat: how often the image was drawn in this epoch before.
        mosaic: whether it may be combined with other images.
        size: (height, width) of the network input; ``None`` for that of the preprocessing.
        batch: positions in the data set of all images of its batch, if known.
    """

    dataset_index: int
    epoch: int
    repeat: int = 0
    mosaic: bool = True
    size: tuple[int, int] | None = None
    batch: tuple[int, ...] = ()


class DetectionSampler(DistributedSampler[SampleIndex]):
    """Shuffle a data set over the ranks and yield :class:`SampleIndex`, all ranks the same number.

    Lightning calls :meth:`set_epoch` and leaves instances of ``DistributedSampler`` alone; a sampler of any other type
    would be replaced under DDP. Works without a process group too, as the only rank.

    An epoch is fixed by ``seed`` and its number. :meth:`start_at` lets it begin in the middle, which is what a resumed
    run needs: sizes and repeats are those that the whole epoch would have had.

    Args:
        dataset: what is sampled; only its length matters.
        seed: of the order; the same on all ranks.
        shuffle: draw a new order each epoch.
        factors: ``(len(dataset),)`` how often to draw each image per epoch on average, see :func:`repeat_factors`;
            ``None`` draws each once.
        sizes: (height, width) of the network input, one drawn for each batch, the same on all ranks.
        batch_size: images per batch and rank: those of a batch share their size and know of each other.

    Attributes:
        mosaic_off_epoch: from this epoch on, indices ask for images that are not combined with others; ``None`` for
            never.
    """

    def __init__(
        self,
        dataset: Sized,
        seed: int = 0,
        shuffle: bool = True,
        factors: NDArray[np.float64] | None = None,
        sizes: Sequence[tuple[int, int]] = (),
        batch_size: int = 1,
    ) -> None:
        in_group = distributed.is_available() and distributed.is_initialized()
        super().__init__(
            dataset,  # type: ignore[arg-type]
            num_replicas=distributed.get_world_size() if in_group else 1,
            rank=distributed.get_rank() if in_group else 0,
            shuffle=shuffle,
            seed=seed,
            drop_last=True,
        )
        self.factors = np.ones(len(dataset)) if factors is None else factors
        self.num_samples = int(self.factors.sum() + 1e-6) // self.num_replicas
        self.total_size = self.num_samples * self.num_replicas
        self.sizes = list(sizes)
        self.batch_size = batch_size
        self.mosaic_off_epoch: int | None = None
        self._start: tuple[int, int] | None = None

    def start_at(self, epoch: int, sample: int) -> None:
        """Begin ``epoch`` with its sample number ``sample`` of this rank; other epochs stay whole."""
        self._start = (epoch, sample)

    @property
    def first_sample(self) -> int:
        """Number of the sample of this rank with which the current epoch begins."""
        return self._start[1] if self._start is not None and self._start[0] == self.epoch else 0

    def __iter__(self) -> Iterator[SampleIndex]:
        """Yield this rank's indices of the epoch set by :meth:`set_epoch`."""
        epoch, first = self.epoch, self.first_sample
        indices, repeats = self._order(epoch)
        sizes = self._sizes(epoch)
        for number in range(first, self.num_samples):
            place = self.rank + number * self.num_replicas
            mosaic = self.mosaic_off_epoch is None or epoch < self.mosaic_off_epoch
            size = sizes[number // self.batch_size] if sizes else None
            if number % self.batch_size == 0 or number == first:
                start = number - number % self.batch_size
                stop = min(start + self.batch_size, self.num_samples)
                places = self.rank + np.arange(start, stop) * self.num_replicas
                batch = tuple(indices[places].tolist())
            yield SampleIndex(int(indices[place]), epoch, int(repeats[place]), mosaic, size, batch)

    def _order(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the images of an epoch, those of all ranks, and how often each was drawn before.

        Fractions of the factors are drawn systematically: the number of draws is the same in every epoch but for one,
        which is left out.
        """
        generator = np.random.default_rng((self.seed, epoch, 0))
        shuffled = generator.permutation(len(self.factors)) if self.shuffle else np.arange(len(self.factors))
        whole = np.floor(self.factors[shuffled])
        steps = np.floor(np.cumsum(self.factors[shuffled] - whole) + generator.random() + 1e-6)
        counts = (whole + np.diff(steps, prepend=0.0)).astype(np.int64)
        indices = np.repeat(shuffled, counts)
        repeats = np.arange(len(indices)) - np.repeat(np.cumsum(counts) - counts, counts)
        if self.shuffle:
            order = generator.permutation(len(indices))
            indices, repeats = indices[order], repeats[order]
        return indices[: self.total_size], repeats[: self.total_size]

    def _sizes(self, epoch: int) -> list[tuple[int, int]]:
        """Return the size of each batch of an epoch."""
        if not self.sizes:
            return []
        generator = np.random.default_rng((self.seed, epoch, 1))
        batches = -(-self.num_samples // self.batch_size)
        return [self.sizes[choice] for choice in generator.integers(len(self.sizes), size=batches)]


def repeat_factors(labels: Sequence[NDArray[np.int64]], threshold: float) -> NDArray[np.float64]:
    """Return how often to draw each image so that rare classes are seen more (LVIS, https://arxiv.org/abs/1908.03195).

    A class in a part ``f`` of the images has the factor ``max(1, sqrt(threshold / f))``, an image the largest factor of
    its classes.

    Args:
        labels: of each image, ``(N,)``.
        threshold: part of the images, above 0 and at most 1, below which a class counts as rare.

    Returns:
        ``(len(labels),)`` factors of at least 1.

    Raises:
        ConfigurationError: a threshold out of range.
    """
    if not 0 < threshold <= 1:
        raise ConfigurationError(
            f"repeat_threshold={threshold} is no part of the images: give a number above 0 and up to 1, such as 0.001."
        )
    present = [np.unique(of_image) for of_image in labels]
    images_with = np.bincount(np.concatenate([*present, np.zeros(0, dtype=np.int64)]).astype(np.int64))
    factors = np.sqrt(np.maximum(1.0, threshold * len(labels) / np.maximum(images_with, 1)))
    return np.array([factors[of_image].max(initial=1.0) for of_image in present], dtype=np.float64)
