"""Remembering what passes by in a step: the extreme batch, and what parts of a module returned."""

import math
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from detlit.callbacks.samples import BatchSample, are_detections, copied
from detlit.structures import Detection

__all__ = ["Extreme", "Watched", "loss_in"]


class Extreme:
    """The sample of the greatest or least value since the last :meth:`take`; values are read one offer late.

    A value is copied to the host while the device works on; by the next offer it has arrived, so that reading it does
    not hold up the step that is being prepared.
    """

    def __init__(self, greatest: bool) -> None:
        self.greatest = greatest
        self._offered: tuple[Tensor, Any, BatchSample] | None = None
        self._best: tuple[float, BatchSample | None] = (float("nan"), None)

    def offer(self, value: Tensor, sample: BatchSample) -> None:
        """Keep the sample if its value is more extreme than those before."""
        self._settle()
        event: Any = torch.cuda.Event() if value.is_cuda else None  # type: ignore[no-untyped-call]
        arriving = value.detach().to("cpu", non_blocking=True)
        if event is not None:
            event.record()
        self._offered = (arriving, event, sample)

    def take(self) -> tuple[float, BatchSample | None]:
        """Return the extreme value and its sample, and forget both."""
        self._settle()
        best, self._best = self._best, (float("nan"), None)
        return best

    def _settle(self) -> None:
        if self._offered is None:
            return
        arrived, event, sample = self._offered
        self._offered = None
        if event is not None:
            event.synchronize()
        value = float(arrived)
        known, held = self._best
        if math.isnan(value) or (held is not None and (value <= known if self.greatest else value >= known)):
            return
        self._best = (value, copied(sample))


class Watched:
    """The last things that the post-prediction callback and the loss of a module returned."""

    def __init__(self) -> None:
        self.forget()
        self._handles: list[Any] = []

    def start(self, pl_module: LightningModule, with_loss: bool) -> None:
        """Watch the parts that are there."""
        self.stop()
        for name, keep in (("post_prediction_callback", self._keep_detections), ("loss", self._keep_loss)):
            part = getattr(pl_module, name, None)
            if isinstance(part, nn.Module) and (with_loss or name != "loss"):
                self._handles.append(part.register_forward_hook(keep))

    def forget(self) -> None:
        """Hold nothing."""
        self.detections: list[Detection] | None = None
        self.loss: Tensor | None = None

    def stop(self) -> None:
        """Leave the module alone."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self.forget()

    def _keep_detections(self, part: nn.Module, inputs: Any, output: Any) -> None:
        if are_detections(output, len(output)):
            self.detections = output

    def _keep_loss(self, part: nn.Module, inputs: Any, output: Any) -> None:
        total = getattr(output, "total", output)
        if isinstance(total, Tensor):
            self.loss = total


def loss_in(outputs: Any) -> Tensor | None:
    """Return the loss that a step returned."""
    loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
    return loss if isinstance(loss, Tensor) and loss.numel() == 1 else None
