"""The LightningModule: a detector, its loss, its post-prediction callback and its metric."""

import copy
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from detlit.errors import CheckpointError, ConfigurationError, abridged
from detlit.losses import DetectionLoss, PPYoloELoss
from detlit.losses.means import MeanLosses
from detlit.metrics import CocoMeanAveragePrecision, DetectionMetric
from detlit.models.checkpoint_entry import make_entry, match_quantization, read_checkpoint
from detlit.models.checkpoints import load_weights
from detlit.models.class_names import placeholder_names
from detlit.models.detector import Detector
from detlit.ops.coordinates import to_original_pixels
from detlit.optim import freeze_parts, keep_frozen_in_eval, parameter_groups, stepped_schedule, with_total_steps
from detlit.postprocess import NMSPostPredictionCallback, PostPredictionCallback
from detlit.spec import Recorded, build, init_spec_of, plain
from detlit.structures import Batch, Detection, LossOutput, Preprocessing, Target

__all__ = ["DetectionModule"]

AnyBatch = Batch | tuple[Tensor | Sequence[Tensor], Sequence[Target]]
"""A detlit batch, or what torchvision-style pipelines yield: images and one dict per image."""


class DetectionModule(LightningModule, Recorded):
    """Train, validate, test and predict with a detector.

    Calling the module, ``module(images)``, returns one :class:`~detlit.structures.Detection` per image in network
    pixels; :meth:`predict_step` returns them in pixels of the original images. Logged: ``train/loss`` and its terms,
    ``val/loss`` and its terms, and the metric's values as ``val/map``, ``val/map_50``, ... and ``test/map``, ... A
    second validation loader logs ``val_1/map``, and so on.

    Args:
        detector: the network.
        loss: the training loss, :class:`~detlit.losses.PPYoloELoss` unless given.
        post_prediction_callback: turns raw predictions into detections,
            :class:`~detlit.postprocess.NMSPostPredictionCallback` unless given.
        metric: scores detections in :meth:`validation_step` and :meth:`test_step`;
            :class:`~detlit.metrics.CocoMeanAveragePrecision` unless given.
        optimizer: makes the optimizer from parameter groups, e.g. ``functools.partial(torch.optim.AdamW, lr=1e-3)``.
        lr_scheduler: makes a scheduler, stepped after every optimizer step, from the optimizer; a ``total_steps`` left
            ``None`` is filled in with the length of the run.
        zero_weight_decay_on_bias_and_norm: keep weight decay off biases, norm layers and scalars.
        weights: a file of weights to start from, see :func:`~detlit.models.checkpoints.load_weights`. A module that is
            rebuilt from a checkpoint has its weights there and does not look for this file.
        freeze: parts of the detector that do not learn, by name or pattern, such as ``["backbone", "neck.up*"]``, see
            :func:`~detlit.optim.freeze_parts`. Their batch norm stays in evaluation mode.
        learning_rates: peak learning rates of parts of the detector, such as ``{"backbone": 1e-4}``, in place of the
            optimizer's, see :func:`~detlit.optim.parameter_groups`.
        weight_decays: weight decays of parameters whose names a regular expression finds, such as
            ``{"^head": 1e-3, "norm": 0.01}``, in place of the optimizer's; likewise.
        channels_last: keep the detector's weights and activations in the channels-last memory format, in which
            convolutions are faster on CPUs and on GPUs with tensor cores; results are the same up to rounding.
        compile_backend: train with the detector compiled by this backend of :func:`torch.compile`, ``"inductor"`` for
            its own; ``None`` does not compile. Names in checkpoints stay the same.
        class_names: names of the labels, stored in the checkpoint. From YAML they come from the data.
        preprocessing: how images become network input; handed to the detector and stored in the checkpoint. From YAML
            it comes from the data. ``None`` keeps the detector's own.

    Attributes:
        score_threshold: least score of a detection worth showing, stored in the checkpoint as the default of
            :class:`~detlit.predictor.Predictor`. Each validation of a fit sets it to where F1 at IoU 0.5 over all
            classes is greatest, because scores drift as the weights do. Those of single classes are in the report
            alone: for a class of few objects they are chance.
    """

    def __init__(
        self,
        detector: Detector,
        loss: DetectionLoss | None = None,
        post_prediction_callback: PostPredictionCallback | None = None,
        metric: DetectionMetric | None = None,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        zero_weight_decay_on_bias_and_norm: bool = True,
        weights: str | Path | None = None,
        freeze: list[str] | None = None,
        learning_rates: dict[str, float] | None = None,
        weight_decays: dict[str, float] | None = None,
        channels_last: bool = True,
        compile_backend: str | None = None,
        class_names: Sequence[str] | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        super().__init__()
        self.detector = detector
        self.loss = PPYoloELoss() if loss is None else loss
        self.post_prediction_callback = (
            NMSPostPredictionCallback() if post_prediction_callback is None else post_prediction_callback
        )
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.zero_weight_decay_on_bias_and_norm = zero_weight_decay_on_bias_and_norm
        self.channels_last = channels_last
        self.compile_backend = compile_backend
        self._names_given, self._preprocessing_given = class_names is not None, preprocessing is not None
        self.score_threshold: float | None = None
        self.class_names = tuple(class_names or placeholder_names(detector.num_classes))
        if len(self.class_names) != detector.num_classes:
            raise ConfigurationError(
                f"{len(self.class_names)} class names for a detector with {detector.num_classes} classes: "
                "build the detector with num_classes equal to the number of names."
            )
        if preprocessing is not None:
            detector.set_preprocessing(preprocessing)
        if weights is not None:
            rank_zero_info(str(load_weights(detector, weights, class_names=class_names)))
        self.frozen_parts = freeze or []
        if self.frozen_parts:
            freeze_parts(detector, self.frozen_parts)
        self.learning_rates = learning_rates or {}
        self.weight_decays = weight_decays or {}
        parameter_groups(detector, True, self.learning_rates, self.weight_decays)  # refuses wrong names right now
        # In a dict, so that they are no part of the network: no entry in its summary, no device or mode of its own.
        self._metrics = {"": CocoMeanAveragePrecision() if metric is None else metric}
        self._losses: dict[str, MeanLosses] = {}

    @property
    def preprocessing(self) -> Preprocessing:
        """How images become network input."""
        return self.detector.preprocessing

    def setup(self, stage: str) -> None:
        """Agree with the data module, and choose the memory format before the strategy wraps the detector.

        Raises:
            ConfigurationError: the data have other classes or another preprocessing than the module was given.
            CheckpointError: before training, an argument of the module cannot be written to a checkpoint.
        """
        self._agree_with(getattr(self._trainer, "datamodule", None))
        for metric in self._metrics.values():
            if getattr(metric, "class_names", ()) is None:
                metric.class_names = self.class_names
        if stage == "fit":
            self._spec()
        if self.channels_last and self.device.type != "mps":  # slower there
            self.detector.to(memory_format=torch.channels_last)
        if stage == "fit" and self.compile_backend is not None:
            self.detector.compile(backend=self.compile_backend)

    def _agree_with(self, data: Any) -> None:
        """Take over what the data say and the module was not told, and refuse what contradicts it."""
        names, preprocessing = getattr(data, "class_names", None), getattr(data, "preprocessing", None)
        if names is not None and tuple(names) != self.class_names:
            if self._names_given or len(names) != len(self.class_names):
                raise ConfigurationError(
                    f"the data have {len(names)} classes ({abridged(names)}) and the module {len(self.class_names)} "
                    f"({abridged(self.class_names)}): build it with data.num_classes and data.class_names."
                )
            self.class_names = tuple(names)
        if isinstance(preprocessing, Preprocessing) and _geometry(preprocessing) != _geometry(self.preprocessing):
            if self._preprocessing_given or self.preprocessing != Preprocessing():
                raise ConfigurationError(
                    f"the data are letterboxed by {preprocessing} and the module expects {self.preprocessing}: "
                    "give both the same preprocessing."
                )
            self.detector.set_preprocessing(preprocessing)

    def train(self, mode: bool = True) -> "DetectionModule":
        """Switch to training or evaluation mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        if self.frozen_parts:
            keep_frozen_in_eval(self.detector)
        return self

    # ---------------------------------------------------------------------------------------------- steps
    def forward(self, images: Tensor) -> list[Detection]:
        """Return the detections of each image, in network pixels; call ``eval()`` first, as with every module.

        Args:
            images: ``(B, 3, H, W)`` uint8 RGB, or float RGB in [0, 1]; letterboxed to one size.
        """
        detections: list[Detection] = self.post_prediction_callback(self.detector(images))
        return detections

    def training_step(self, batch: AnyBatch, batch_idx: int) -> Tensor:
        """Return the total loss of one batch and log its terms."""
        images, targets = _images_and_targets(batch)
        output: LossOutput = self.loss(self.detector(images), targets)
        size = len(images)
        self.log("train/loss", output.total.detach(), batch_size=size, prog_bar=True)
        self.log_dict({f"train/{name}": value for name, value in output.terms.items()}, batch_size=size)
        return output.total

    def validation_step(self, batch: AnyBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Compute the loss, and hand detections and ground truth to the metric of this loader."""
        self._evaluate(batch, _stage_key("val", dataloader_idx))

    def on_validation_epoch_start(self) -> None:
        """Forget what an interrupted validation left."""
        self._reset_metrics("val")

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the validation loaders."""
        self._log_metrics("val")

    def test_step(self, batch: AnyBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Detect and hand detections and ground truth to the metric of this loader."""
        self._evaluate(batch, _stage_key("test", dataloader_idx))

    def on_test_epoch_start(self) -> None:
        """Forget what an interrupted test left."""
        self._reset_metrics("test")

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the test loaders."""
        self._log_metrics("test")

    def predict_step(self, batch: AnyBatch | Tensor, batch_idx: int, dataloader_idx: int = 0) -> list[Detection]:
        """Return the detections of each image, in pixels of the original image, clipped to it.

        A batch that does not say how its images were letterboxed gets them in network pixels.
        """
        if isinstance(batch, Tensor):
            return self.forward(batch)
        images, targets = _images_and_targets(batch)
        return _in_original_pixels(self(images), targets.targets if isinstance(targets, Batch) else targets)

    def _evaluate(self, batch: AnyBatch, key: str) -> None:
        images, truth = _images_and_targets(batch)
        predictions = self.detector(images)
        if key.partition("_")[0] == "val":
            self._losses.setdefault(key, MeanLosses()).update(self.loss(predictions, truth), len(images))
        targets = truth.targets if isinstance(truth, Batch) else truth
        detections = _in_original_pixels(self.post_prediction_callback(predictions), targets)
        self._metric_of(key).update(detections, targets)

    # -------------------------------------------------------------------------------------------- metrics
    def _metric_of(self, key: str) -> DetectionMetric:
        """Return the metric of a loader, a fresh clone of the given one when first asked for."""
        if key not in self._metrics:
            self._metrics[key] = copy.deepcopy(self._metrics[""])
        return self._metrics[key].to(self.device)

    def metrics_of(self, stage: str) -> dict[str, DetectionMetric]:
        """Return the metric of each loader of ``"val"`` or ``"test"``, by what its values are logged as: ``val_1``."""
        loaders = self.trainer.num_val_batches if stage == "val" else self.trainer.num_test_batches
        return {key: self._metric_of(key) for key in (_stage_key(stage, index) for index in range(len(loaders)))}

    def _choose_score_threshold(self, metric: DetectionMetric) -> None:
        """Remember the score threshold of the greatest F1; where nothing is right, the one before stays."""
        if isinstance(metric, CocoMeanAveragePrecision):
            best = metric.best_score_threshold()
            self.score_threshold = self.score_threshold if best is None else best

    def _reset_metrics(self, stage: str) -> None:
        self._losses.clear()
        for key, metric in self._metrics.items():
            if key.partition("_")[0] == stage:
                metric.reset()

    def _log_metrics(self, stage: str) -> None:
        """Log every value of every loader of a stage; they are the same on all ranks already."""
        for key, metric in self.metrics_of(stage).items():
            values = metric.compute()
            if key == "val" and self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking:
                self._choose_score_threshold(metric)
            metric.reset()
            self.log_dict(
                {f"{key}/{name}": loss for name, loss in self._losses.pop(key, MeanLosses()).compute().items()}
            )
            on_bar = [name for name in ("map", "map_50") if name in values]
            self.log_dict({f"{key}/{name}": values.pop(name).float() for name in on_bar}, prog_bar=True)
            self.log_dict({f"{key}/{name}": value.float() for name, value in values.items()})

    # ---------------------------------------------------------------------------------------- optimisation
    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimizer over named parameter groups, and the scheduler, stepped once per optimizer step."""
        try:
            optimizer = self.optimizer(self._parameter_groups())
        except ValueError as error:
            raise ConfigurationError(
                f"the optimizer refuses its arguments ({error}): correct model.optimizer."
            ) from error
        if self.lr_scheduler is None:
            return optimizer
        steps, epochs = lambda: self.trainer.estimated_stepping_batches, lambda: self.trainer.max_epochs
        scheduler = with_total_steps(self.lr_scheduler, steps, epochs)(optimizer)
        schedule: Any = stepped_schedule(scheduler)
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """Return the groups of all that is trainable; parts are named from the detector on."""
        rates = {f"detector.{part}": rate for part, rate in self.learning_rates.items()}
        decays = {re.sub(r"^\^", r"^detector\.", pattern): decay for pattern, decay in self.weight_decays.items()}
        groups = parameter_groups(self, self.zero_weight_decay_on_bias_and_norm, rates, decays)
        return [{**group, "name": group["name"].removeprefix("detector.")} for group in groups]

    # ----------------------------------------------------------------------------------------- checkpoints
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the entry that makes the checkpoint self-contained; see :mod:`detlit.models.checkpoint_entry`."""
        checkpoint["detlit"] = make_entry(
            self._spec(), self._data_spec(), self.preprocessing, self.class_names, self.score_threshold
        )

    def _spec(self) -> dict[str, Any]:
        """Return the constructor arguments, with what they have become since: the data decided on the classes."""
        now = {"class_names": self.class_names, "preprocessing": self.preprocessing}
        return {**init_spec_of(self), **{name: plain(value) for name, value in now.items()}}

    def _data_spec(self) -> dict[str, Any] | None:
        """Return the arguments of the data module, or ``None`` where plain data cannot describe it."""
        datamodule = getattr(self._trainer, "datamodule", None)
        if not isinstance(datamodule, Recorded):
            return None
        try:
            return {**init_spec_of(datamodule), "class_names": list(self.class_names)}
        except CheckpointError:
            return None

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Quantize as the checkpoint is, and refuse other classes, before torch reports names and shapes."""
        match_quantization(self.detector, checkpoint.get("detlit", {}))
        self.score_threshold = checkpoint.get("detlit", {}).get("score_threshold")
        names = tuple(checkpoint.get("detlit", {}).get("class_names", self.class_names))
        unnamed = placeholder_names(len(names))
        if names != self.class_names and (
            len(names) != len(self.class_names) or unnamed not in (names, self.class_names)
        ):
            raise CheckpointError(
                f"the checkpoint has {len(names)} classes ({abridged(names)}) and this run {len(self.class_names)} "
                f"({abridged(self.class_names)}): use the data and classes it was trained with, in their order."
            )

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls,
        checkpoint_path: str | Path,
        map_location: Any = None,
        *,
        strict: bool = True,
        allow_custom_code: bool = False,
        **overrides: Any,
    ) -> "DetectionModule":
        """Rebuild a module from a checkpoint alone, whether a script or the command line wrote it.

        Like every new module it is in training mode: call ``eval()`` before detecting with it.

        Args:
            checkpoint_path: a checkpoint of :class:`DetectionModule`.
            map_location: the device for the weights, as in :func:`torch.load`.
            strict: refuse missing or unexpected weights.
            allow_custom_code: also build classes from outside detlit and torch that the checkpoint names.
            **overrides: constructor arguments to use instead of the stored ones.

        Raises:
            CheckpointError: the file is damaged, not detlit's, or names code that is not trusted.
        """
        checkpoint = read_checkpoint(checkpoint_path, map_location="cpu" if map_location is None else map_location)
        superseded = {"weights", *overrides}  # the checkpoint holds what became of the weights
        stored = {key: value for key, value in checkpoint["detlit"]["module"].items() if key not in superseded}
        module = cls(**build(stored, allow_custom_code=allow_custom_code), **overrides)
        module.score_threshold = checkpoint["detlit"].get("score_threshold")
        if "class_names" not in overrides:
            module.on_load_checkpoint(checkpoint)
        module.load_state_dict(checkpoint["state_dict"], strict=strict)
        return module


def _geometry(preprocessing: Preprocessing) -> Preprocessing:
    """Return the part of a preprocessing that is done where images are loaded; the detector does the rest."""
    return dataclasses.replace(preprocessing, channel_order="RGB", mean=None, std=None)


def _stage_key(stage: str, dataloader_idx: int) -> str:
    return stage if dataloader_idx == 0 else f"{stage}_{dataloader_idx}"


def _images_and_targets(batch: AnyBatch) -> tuple[Tensor, Batch | Sequence[Target]]:
    """Return the image tensor of a batch, and what the loss takes as ground truth."""
    if isinstance(batch, Batch):
        return batch.images, batch
    images, targets = batch
    return images if isinstance(images, Tensor) else torch.stack(list(images)), targets


def _in_original_pixels(detections: list[Detection], targets: Sequence[Target]) -> list[Detection]:
    """Undo the letterbox of each image, as far as the targets describe one."""
    if not all("geometry" in target and "orig_size" in target for target in targets):
        return detections
    geometry = torch.stack([target["geometry"] for target in targets])
    return to_original_pixels(detections, geometry, [target["orig_size"] for target in targets])
