"""Mean losses over an evaluation."""

from typing import Any

from torch import Tensor, distributed

from detlit.structures import LossOutput

__all__ = ["MeanLosses"]


class MeanLosses:
    """The mean of a loss and its terms in which each image counts once, whatever the size of its batch.

    Sums stay on the device of the losses until :meth:`compute`.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._images = 0

    def update(self, output: LossOutput, num_images: int) -> None:
        """Add a batch."""
        self._images += num_images
        for name, value in {"loss": output.total, **output.terms}.items():
            self._sums[name] = self._sums.get(name, 0) + value.detach() * num_images

    def compute(self) -> dict[str, float]:
        """Return the means over the images of all ranks, some of which may have had none; empty where all had none."""
        own = {name: float(total) for name, total in self._sums.items()}, self._images
        everyone: list[Any] = [own]
        if distributed.is_available() and distributed.is_initialized():
            everyone = [None] * distributed.get_world_size()
            distributed.all_gather_object(everyone, own)
        images = sum(count for _, count in everyone)
        names = next((list(sums) for sums, _ in everyone if sums), [])
        return {name: sum(sums[name] for sums, _ in everyone if sums) / images for name in names}
