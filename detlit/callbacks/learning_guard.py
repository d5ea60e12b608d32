"""Warnings that a run learns nothing."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from detlit.errors import ConfigurationError
from detlit.structures import Batch

__all__ = ["LearningGuard", "objects_in"]


class LearningGuard(Callback):
    """Warn, once each, when training cannot get anywhere: a loss that never changes, or objects that match nothing.

    The loss is compared on the device and read once in ``every_n_steps`` batches.

    Args:
        every_n_steps: batches that are looked at together.
    """

    def __init__(self, every_n_steps: int = 100) -> None:
        if every_n_steps < 2:
            raise ConfigurationError(f"every_n_steps={every_n_steps} compares nothing: set it to 2 or more.")
        self.every_n_steps = every_n_steps
        self.looks = 0
        self._range: tuple[Tensor, Tensor] | None = None
        self._seen = 0
        self._objects: int | None = 0
        self._said: set[str] = set()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Compare the loss with those before."""
        loss = outputs["loss"].detach() if isinstance(outputs, dict) and "loss" in outputs else None
        if loss is None:
            return
        least, most = (loss, loss) if self._range is None else self._range
        self._range = (torch.minimum(least, loss), torch.maximum(most, loss))
        self._seen += 1
        objects = objects_in(batch)
        self._objects = None if objects is None or self._objects is None else self._objects + objects
        if self._seen == self.every_n_steps:
            self._look(trainer, batch, objects)
            self._range, self._seen, self._objects = None, 0, 0

    def _look(self, trainer: Trainer, batch: Any, objects: int | None) -> None:
        """Judge the batches since the last look; ``objects`` are those of the last, which ``batch`` is."""
        assert self._range is not None
        least, most = torch.stack(self._range).tolist()
        self.looks += 1
        if self._objects == 0:
            self._say("objects", f"The last {self._seen} batches had no object: check that the annotations are read.")
        elif least == most:
            rates = {group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups}
            cause = "the learning rate is 0" if rates == {0.0} else "nothing that is trained has an influence on it"
            self._say(
                "constant",
                f"The loss has been exactly {least:g} for {self._seen} batches, likely because {cause}: check "
                "model.optimizer, the schedule and model.freeze.",
            )
        matched = trainer.callback_metrics.get("train/loss_iou")
        if objects and matched is not None and float(matched) == 0.0:
            own = "their own image, before any resizing" if isinstance(batch, Batch) else "the images of the batch"
            self._say(
                "matched",
                f"None of the {objects} objects of the last batch may have matched a prediction, as train/loss_iou is "
                f"0: check that boxes are xyxy, not xywh or normalised, in pixels of {own}.",
            )

    def _say(self, subject: str, sentence: str) -> None:
        if subject not in self._said:
            self._said.add(subject)
            rank_zero_warn(sentence)


def objects_in(batch: Any) -> int | None:
    """Return the number of objects of a batch as the host knows it, ``None`` where it cannot be told."""
    if isinstance(batch, Batch):
        return sum(batch.counts)
    if isinstance(batch, (tuple, list)) and len(batch) == 2 and isinstance(batch[1], (tuple, list)):
        targets = batch[1]
        if all(isinstance(target, dict) and "boxes" in target for target in targets):
            return sum(len(target["boxes"]) for target in targets)
    return None
