"""A DataLoader that a run can resume in the middle of an epoch."""

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from detlit.data.sampler import DetectionSampler
from detlit.structures import Batch

__all__ = ["ResumableLoader"]


class ResumableLoader(DataLoader[Batch]):
    """A loader over a :class:`~detlit.data.DetectionSampler` that remembers how far into the epoch it is.

    Lightning saves :meth:`state_dict` of the training loader in every checkpoint, and when it resumes calls
    :meth:`load_state_dict` before it asks for batches. The state is ``{"epoch": e, "samples": n}``: ``n`` images, of
    all ranks together, were handed out in epoch ``e``; batches that workers have ready but nobody took do not count.
    After loading, epoch ``e`` (set with ``sampler.set_epoch(e)``, as Lightning does) yields exactly the remaining
    batches, and every other epoch is whole. The number of ranks and workers may differ; ``len`` is always that of a
    whole epoch, from which Lightning subtracts the batches done itself.
    """

    sampler: DetectionSampler

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        """Yield the batches of the epoch, or what is left of it."""
        self._position = (self.sampler.epoch, self.sampler.first_sample)
        for batch in super().__iter__():
            epoch, samples = self._position
            self._position = (epoch, samples + len(batch))
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return how many images of which epoch were handed out."""
        epoch, samples = getattr(self, "_position", (self.sampler.epoch, self.sampler.first_sample))
        return {"epoch": epoch, "samples": samples * self.sampler.num_replicas}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self.sampler.start_at(state["epoch"], state["samples"] // self.sampler.num_replicas)
