"""Pictures of what the model sees and says while it trains."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import cv2
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from detlit.callbacks.image_loggers import log_image
from detlit.callbacks.samples import BatchSample, are_detections, images_and_targets, joined, shown_of, statistic
from detlit.callbacks.watching import Extreme, Watched, loss_in
from detlit.errors import ConfigurationError
from detlit.metrics.average_precision import COCO_STATISTICS
from detlit.reports.batches import batch_picture
from detlit.structures import Detection

__all__ = ["DetectionVisualization"]

_DEFAULT_THRESHOLD = 0.25
_SHARDING = (DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy)
_LOSSES = ("train/loss", "val/loss")
MONITORS = (*_LOSSES, *(f"val/{name}" for name in COCO_STATISTICS))


class DetectionVisualization(Callback):
    """Draw training batches, predictions beside the ground truth, and the worst batch of an epoch.

    In ``pictures`` of the run folder, and in every logger that takes images, see
    :func:`~detlit.callbacks.image_loggers.log_image`:

    * ``train``: batches as the model sees them, after all augmentation, with classes and file names;
    * ``val``: the first images of a validation, what is there on the left and what was found on the right;
    * ``worst_train_loss``, or as ``monitor`` and ``mode`` say: the batch of an epoch with the extreme loss or metric,
      likewise.

    The first process alone draws, from its own batches. Training is not touched: weights, random numbers and the
    statistics of batch norm are the same to the bit as without pictures. The loss of a training batch is read one step
    late, when the device is done with it. Pictures of training batches cost one forward pass of ``num_images`` each,
    those of validation none if the module has a ``post_prediction_callback`` that is an ``nn.Module``.

    It works on any LightningModule whose batches are a :class:`~detlit.structures.Batch` or ``(images, targets)`` with
    one dict of ``boxes`` and ``labels`` for each image, and whose ``forward`` returns one
    :class:`~detlit.structures.Detection` for each image; without that, what was found is left out. Attributes of the
    module that are read if they are there: ``class_names``, ``score_threshold``, ``post_prediction_callback``, and
    ``loss`` (an ``nn.Module``) for ``monitor="val/loss"`` where ``validation_step`` does not return it.

    Args:
        train_epochs: epochs, counted from 0, whose first batches are drawn; those that turn augmentations off are worth
            a look.
        train_batches: how many of each.
        every_n_epochs: epochs between two pictures of the worst batch, and validations between two of predictions, both
            from the first on; the last ones of a run are always drawn.
        num_images: images of a picture at most.
        score_threshold: detections below it are not drawn; ``None`` takes the module's ``score_threshold``, which for
            :class:`~detlit.module.DetectionModule` is the one of the greatest F1, otherwise 0.25.
        max_boxes: detections of an image that are drawn at most, those of the highest score.
        monitor: what decides on the worst batch: ``"train/loss"``, ``"val/loss"``, or one of COCO's statistics of a
            batch, such as ``"val/map_50"``, in pixels of the network input; ``None`` for no such picture.
        mode: ``"worst"``, the greatest loss or the least metric, or ``"best"``, the other end.
        class_names: names of the labels; the module's or the data module's unless given.
        files: write JPEG files.
        loggers: hand pictures to the Trainer's loggers.

    Raises:
        ConfigurationError: an argument out of range; when training starts, a strategy that shards the weights.
    """

    def __init__(
        self,
        train_epochs: Sequence[int] = (0,),
        train_batches: int = 1,
        every_n_epochs: int = 5,
        num_images: int = 8,
        score_threshold: float | None = None,
        max_boxes: int = 30,
        monitor: str | None = "train/loss",
        mode: Literal["worst", "best"] = "worst",
        class_names: Sequence[str] | None = None,
        files: bool = True,
        loggers: bool = True,
    ) -> None:
        for name, value, least in (
            ("train_batches", train_batches, 0),
            ("every_n_epochs", every_n_epochs, 1),
            ("num_images", num_images, 1),
            ("max_boxes", max_boxes, 1),
        ):
            if value < least:
                raise ConfigurationError(f"DetectionVisualization {name}={value} is too small: choose {least} or more.")
        if monitor is not None and monitor not in MONITORS:
            raise ConfigurationError(
                f"DetectionVisualization monitor={monitor!r} is not known of single batches: choose one of "
                f"{', '.join(MONITORS)}."
            )
        if mode not in ("worst", "best"):
            raise ConfigurationError(f"DetectionVisualization mode={mode!r} is unknown: choose 'worst' or 'best'.")
        self.train_epochs = frozenset(train_epochs)
        self.train_batches = train_batches
        self.every_n_epochs = every_n_epochs
        self.num_images = num_images
        self.score_threshold = score_threshold
        self.max_boxes = max_boxes
        self.monitor = monitor
        self.mode = mode
        self.class_names = class_names
        self.files = files
        self.loggers = loggers
        self._folder = Path()
        self._watched = Watched()
        self._extreme = Extreme(greatest=(monitor in _LOSSES) == (mode == "worst"))
        self._validation: list[BatchSample] = []
        self._validations = 0
        self._undrawn: dict[str, Callable[[], None]] = {}
        self._said = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the folder on every rank (``log_dir`` broadcasts)."""
        if stage != "fit":
            return
        if isinstance(trainer.strategy, _SHARDING):
            raise ConfigurationError(
                f"DetectionVisualization detects on one process and {type(trainer.strategy).__name__} splits the "
                "weights over all: use trainer.strategy=ddp, or leave the pictures out."
            )
        self._folder = Path(trainer.log_dir or trainer.default_root_dir) / "pictures"
        self._validations, self._undrawn = 0, {}

    # ------------------------------------------------------------------------------------------------- training
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Draw the batch, before the step can change it."""
        if self._is_idle(trainer):
            return
        if trainer.current_epoch in self.train_epochs and batch_idx < self.train_batches:
            sample = self._sample(trainer, batch, batch_idx)
            title = f"training batch {batch_idx} of epoch {sample.epoch}, as the model sees it"
            self._draw(trainer, pl_module, sample, f"train/epoch_{sample.epoch}_batch_{batch_idx}", title)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Remember the batch if it is the worst so far."""
        if self.monitor == "train/loss" and not self._is_idle(trainer):
            loss = loss_in(outputs)
            if loss is not None:
                self._extreme.offer(loss * trainer.accumulate_grad_batches, self._sample(trainer, batch, batch_idx))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the worst batch of the epoch."""
        if self.monitor == "train/loss" and not self._is_idle(trainer):
            self._finish_extreme(trainer, pl_module, trainer.current_epoch)

    # ----------------------------------------------------------------------------------------------- validation
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Watch what the module's parts return, so that nothing is computed twice."""
        self._validation = []
        if not self._is_idle(trainer):
            self._watched.start(pl_module, self.monitor == "val/loss")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Put the first images aside, and the worst batch."""
        if self._is_idle(trainer) or dataloader_idx > 0:
            return
        scored = self.monitor is not None and self.monitor.startswith("val/")
        missing = self.num_images - sum(len(sample.images) for sample in self._validation)
        if missing > 0:
            sample = self._sample(trainer, batch, batch_idx, missing)
            self._validation.append(self._detected(trainer, pl_module, sample))
        if scored:
            value = self._value_of(trainer, pl_module, outputs, batch)
            if value is not None:
                self._extreme.offer(value, self._detected(trainer, pl_module, self._sample(trainer, batch, batch_idx)))
        self._watched.forget()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw, now that the module knows its score threshold."""
        self._watched.stop()
        if self._is_idle(trainer) or not self._validation:
            return
        first, samples = self._validation[0], self._validation
        sample = BatchSample(
            [image.clone() for one in samples for image in one.images],
            [target for one in samples for target in one.targets],
            joined([one.detections for one in samples]),
            first.step,
            first.epoch,
            0,
        )
        self._validation = []
        threshold = self._threshold(pl_module)

        def draw() -> None:
            title = f"validation at step {sample.step} (epoch {sample.epoch})"
            self._draw(trainer, pl_module, sample, f"val/step_{sample.step}", title, threshold)

        self._draw_in_turn("val", self._validations, draw)
        if self.monitor is not None and self.monitor.startswith("val/"):
            self._finish_extreme(trainer, pl_module, self._validations)
        self._validations += 1

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw what came last, if its turn had not come."""
        for draw in self._undrawn.values():
            draw()
        self._undrawn = {}

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop watching."""
        self._watched.stop()

    # -------------------------------------------------------------------------------------------------- samples
    def _is_idle(self, trainer: Trainer) -> bool:
        """Tell whether this is no time, or no process, for pictures."""
        fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        return not (fitting and trainer.is_global_zero) or bool(trainer.fast_dev_run)  # type: ignore[attr-defined]

    def _sample(self, trainer: Trainer, batch: Any, batch_idx: int, most: int | None = None) -> BatchSample:
        """Return the first images of a batch."""
        images, targets = images_and_targets(batch)
        most = self.num_images if most is None else most
        return BatchSample(images[:most], targets[:most], None, trainer.global_step, trainer.current_epoch, batch_idx)

    def _detected(self, trainer: Trainer, pl_module: LightningModule, sample: BatchSample) -> BatchSample:
        """Return a sample with detections: those just made in the validation step, otherwise made now."""
        detections = self._watched.detections
        if detections is None:
            detections = self._detect(trainer, pl_module, sample.images)
        else:
            detections = detections[: len(sample.images)]
        return BatchSample(sample.images, sample.targets, detections, sample.step, sample.epoch, sample.batch)

    def _detect(
        self, trainer: Trainer, pl_module: LightningModule, images: Tensor | list[Tensor]
    ) -> list[Detection] | None:
        """Return the module's detections, which leaves no trace in it, or ``None`` if it makes none."""
        with _evaluating(pl_module), isolate_rng(), torch.no_grad(), trainer.precision_plugin.val_step_context():
            found = pl_module(images)
        if not are_detections(found, len(images)):
            if not self._said:
                rank_zero_warn(
                    f"{type(pl_module).__name__}.forward returns no detections (one dict of boxes, scores and labels "
                    "for each image), so that pictures show the ground truth alone."
                )
            self._said = True
            return None
        detections: list[Detection] = found
        return detections

    # -------------------------------------------------------------------------------------------------- extreme
    def _value_of(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any) -> Tensor | None:
        """Return what the monitor is for a validation batch, ``None`` where it cannot be told."""
        if self.monitor == "val/loss":
            loss = loss_in(outputs)
            return self._watched.loss if loss is None else loss
        images, targets = images_and_targets(batch)
        detections = self._watched.detections or self._detect(trainer, pl_module, images)
        if detections is None:
            return None
        value = statistic(detections, targets, str(self.monitor).removeprefix("val/"))
        return None if value == -1 else torch.tensor(value)

    def _finish_extreme(self, trainer: Trainer, pl_module: LightningModule, turn: int) -> None:
        """Draw the worst batch since the last call."""
        value, sample = self._extreme.take()
        if sample is None:
            return
        if sample.detections is None:
            sample = self._detected(trainer, pl_module, sample)
        threshold = self._threshold(pl_module)
        name = f"{self.mode}_{str(self.monitor).replace('/', '_')}"

        def draw() -> None:
            what = f"{self.monitor} {value:.3f}"
            title = f"{self.mode} batch of epoch {sample.epoch}: {what} (batch {sample.batch}, step {sample.step})"
            self._draw(trainer, pl_module, sample, f"{name}/step_{trainer.global_step}", title, threshold)

        self._draw_in_turn(name, turn, draw)

    # ----------------------------------------------------------------------------------------------------- draw
    def _draw_in_turn(self, name: str, turn: int, draw: Callable[[], None]) -> None:
        """Draw every so many turns, and keep what is not drawn: it may be the last."""
        self._undrawn.pop(name, None)
        if turn % self.every_n_epochs == 0:
            draw()
        else:
            self._undrawn[name] = draw

    def _threshold(self, pl_module: LightningModule) -> float:
        of_module = getattr(pl_module, "score_threshold", None)
        chosen = self.score_threshold if self.score_threshold is not None else of_module
        return float(chosen) if isinstance(chosen, (int, float)) else _DEFAULT_THRESHOLD

    def _draw(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        sample: BatchSample,
        name: str,
        title: str,
        threshold: float | None = None,
    ) -> None:
        """Write a picture; with a threshold it has what was found beside what is there."""
        if threshold is not None and sample.detections is not None:
            title += f", score > {threshold:.2f}"
        shown = [
            shown_of(
                image,
                sample.targets[row],
                None if sample.detections is None else sample.detections[row],
                threshold,
                self.max_boxes,
            )
            for row, image in enumerate(sample.images)
        ]
        picture = batch_picture(shown, self._names(trainer, pl_module), title, ("objects", "detections"))
        if self.files:
            path = self._folder / f"{name.replace('/', '_')}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            encoded = cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
            path.write_bytes(encoded.tobytes())
        if self.loggers:
            tag = "pictures/" + name.rpartition("/")[0]
            for logger in trainer.loggers:
                log_image(logger, tag, picture, trainer.global_step)

    def _names(self, trainer: Trainer, pl_module: LightningModule) -> Sequence[str]:
        data = getattr(trainer, "datamodule", None)
        known = (self.class_names, getattr(pl_module, "class_names", None), getattr(data, "class_names", None))
        return next((list(names) for names in known if names), [])


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode, and then each of its parts into the mode that it was in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
