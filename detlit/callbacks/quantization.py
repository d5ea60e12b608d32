"""Train a detector with the rounding errors that it will have as integers."""

import copy
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, distributed, nn
from torch.utils.hooks import RemovableHandle

from detlit.errors import ConfigurationError
from detlit.quantization import (
    LayerReport,
    Quantization,
    calibrate,
    calibration_batches,
    format_report,
    needs_calibration,
    write_report,
)
from detlit.quantization.calibration import check_numbers, named_quantizers, set_rounding
from detlit.quantization.distillation import distillation_loss
from detlit.quantization.layers import ActivationQuantizer, QuantizedConvolution
from detlit.quantization.quantization import Backend
from detlit.quantization.ranges import Method, check_method
from detlit.spec import spec_of
from detlit.structures import LossOutput

__all__ = ["QuantizationAwareTraining"]


class QuantizationAwareTraining(Callback):
    """Fine-tune a trained detector as the integers will compute it, https://arxiv.org/abs/1712.05877, section 3.

    Before training it merges the branches of the detector's blocks, replaces layers by rounding ones and finds the
    ranges of activations on training images, without augmentation. It works on any LightningModule with a ``detector``,
    under every precision, EMA and DDP, whatever the order of callbacks. Checkpoints rebuild the quantized detector by
    themselves; a run that is resumed calibrates nothing.

    Start from the averaged weights of a float run (``model.weights``, not ``--ckpt_path``), for about a tenth of its
    epochs, at a hundredth to a tenth of its learning rate, without mosaic. bfloat16 rounds as coarsely as the integers
    do, so what is trained and validated in ``bf16-mixed`` is not what they compute: ``32-true`` is worth its time.

    Args:
        backend: who will run the integers, see :data:`~detlit.quantization.quantization.Backend`.
        skip: what stays in floating point, see :class:`~detlit.quantization.Quantization`; ``detlit quantize --rank
            sqnr`` lists the candidates.
        weight_bits: bits of the weights.
        calibration_batches: batches of training images of each process that ranges come from.
        calibration_batch_size: images in each.
        method: how ranges are chosen, see :data:`~detlit.quantization.ranges.Method`.
        percentile: share of the values that ``"percentile"`` does not clip, in percent.
        observe_until: up to this share of the run the ranges follow those of the training batches, then they stay; 0
            keeps the calibrated ones.
        momentum: share of a new batch in a range that follows.
        freeze_batch_norm_from: from this share of the run on batch norm uses its running statistics and leaves them
            alone, as the integers will.
        distillation: weight of a loss that pulls predictions towards those of the float detector; 0 for none. The
            module needs a ``loss`` that is called with the detector's predictions and returns a
            :class:`~detlit.structures.LossOutput`.
        images: batches of images to calibrate on, for modules trained without a
            :class:`~detlit.data.DetectionDataModule`; exactly ``calibration_batches`` of them are read.

    Raises:
        ConfigurationError: a share outside [0, 1], a negative weight, no images to calibrate on, an unknown method;
            when training starts, a module without what is named above, or a detector that is quantized otherwise.
    """

    def __init__(
        self,
        backend: Backend = "cpu",
        skip: Sequence[str] = (),
        weight_bits: int = 8,
        calibration_batches: int = 16,
        calibration_batch_size: int = 8,
        method: Method = "mse",
        percentile: float = 99.999,
        observe_until: float = 0.5,
        momentum: float = 0.01,
        freeze_batch_norm_from: float = 0.0,
        distillation: float = 0.0,
        images: Iterable[Any] | None = None,
    ) -> None:
        shares = {"observe_until": observe_until, "freeze_batch_norm_from": freeze_batch_norm_from}
        for name, share in {**shares, "momentum": momentum}.items():
            if not 0 <= share <= 1:
                raise ConfigurationError(f"{name}={share} is no share: choose a number from 0 to 1.")
        if distillation < 0:
            raise ConfigurationError(f"distillation={distillation} pushes away from the teacher: choose 0 or more.")
        check_method(method, percentile)
        check_numbers(calibration_batches, calibration_batch_size)
        self.quantization = Quantization(backend, tuple(skip), weight_bits)
        self.calibration_batches = calibration_batches
        self.calibration_batch_size = calibration_batch_size
        self.method = method
        self.percentile = percentile
        self.observe_until = observe_until
        self.momentum = momentum
        self.freeze_batch_norm_from = freeze_batch_norm_from
        self.distillation = distillation
        self.images = images
        self.layers: list[LayerReport] = []
        self._teacher: nn.Module | None = None
        self._seen: Tensor | None = None
        self._hooks: list[RemovableHandle] = []
        self._quantizers: list[ActivationQuantizer] = []
        self._norms: list[nn.BatchNorm2d] = []

    # ----------------------------------------------------------------------------------------------- preparation
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Replace layers, before the optimizer looks at their parameters and a checkpoint fills them."""
        if stage != "fit":
            return
        detector = _named(pl_module, "detector")
        if detector.quantization is None:
            detector.quantize(self.quantization)
        elif spec_of(detector.quantization) != spec_of(self.quantization):
            raise ConfigurationError(
                f"the detector is quantized already, with {detector.quantization}, and the callback says "
                f"{self.quantization}: give both the same."
            )
        pl_module.train()
        if self.distillation:
            _named(pl_module, "loss")
            self._teacher = _float_copy(detector)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the ranges, on the device, unless a checkpoint brought them."""
        if trainer.precision.startswith("bf16"):
            rank_zero_warn(
                f"precision={trainer.precision} keeps 8 bits of every value and rounds as coarsely as the integers: "
                "validation says more about them with --trainer.precision 32-true."
            )
        detector: nn.Module = pl_module.detector  # type: ignore[assignment]
        if needs_calibration(detector):
            self.layers = calibrate(
                detector, self._calibration_images(trainer, detector), self.method, percentile=self.percentile
            )
            self._report(trainer)
        if self._teacher is not None:
            self._teacher.to(pl_module.device)
            self._hooks = [
                detector.register_forward_pre_hook(self._remember_images),
                pl_module.loss.register_forward_hook(self._add_distillation),  # type: ignore[union-attr]
            ]

    def _calibration_images(self, trainer: Trainer, detector: Any) -> Iterable[Any]:
        if self.images is not None:
            return _exactly(self.images, self.calibration_batches)
        dataset_of = getattr(trainer.datamodule, "dataset", None)  # type: ignore[attr-defined]
        dataset = None if dataset_of is None else dataset_of("train")
        if dataset is None:
            raise ConfigurationError(
                "quantization looks at training images first and found no data module that has them: train with "
                "DetectionDataModule, or give QuantizationAwareTraining(images=...)."
            )
        return calibration_batches(
            dataset,
            detector.preprocessing,
            num_batches=self.calibration_batches,
            batch_size=self.calibration_batch_size,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )

    def _report(self, trainer: Trainer) -> None:
        """Show the worst layers, and write all into quantization.csv beside the logs."""
        folder = trainer.log_dir  # on every rank: it is broadcast
        rank_zero_info(f"Quantized; the layers with most noise:\n{format_report(self.layers, worst=10)}")
        if trainer.is_global_zero and folder is not None and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            Path(folder).mkdir(parents=True, exist_ok=True)
            write_report(self.layers, Path(folder) / "quantization.csv")

    # -------------------------------------------------------------------------------------------------- schedule
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """List what the schedule is about: every batch asks, and a detector has hundreds of parts."""
        parts = list(pl_module.detector.modules())  # type: ignore[union-attr]
        self._quantizers = [part for part in parts if isinstance(part, ActivationQuantizer)]
        self._norms = [part for part in parts if isinstance(part, nn.BatchNorm2d)]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set what the time in the run asks for; Lightning has switched to training mode."""
        self._follow_schedule(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Freeze in the middle of an epoch too."""
        self._follow_schedule(trainer)

    def _follow_schedule(self, trainer: Trainer) -> None:
        steps = trainer.estimated_stepping_batches
        progress = 0.0 if math.isinf(steps) else trainer.global_step / steps
        momentum = self.momentum if progress < self.observe_until else 0.0
        for quantizer in self._quantizers:
            if quantizer.momentum != momentum:
                quantizer.momentum = momentum
        if progress >= self.freeze_batch_norm_from:
            for norm in self._norms:
                if norm.training:
                    norm.eval()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Let all processes have the ranges of the first: each saw other images."""
        if trainer.world_size > 1 and self._quantizers[0].momentum:
            values = torch.stack([torch.stack((part.scale, part.zero_point)) for part in self._quantizers])
            distributed.broadcast(values, src=0)
            for part, (scale, zero_point) in zip(self._quantizers, values, strict=True):
                part.scale.copy_(scale)
                part.zero_point.copy_(zero_point)

    # ---------------------------------------------------------------------------------------------- distillation
    def _remember_images(self, detector: nn.Module, inputs: tuple[Tensor]) -> None:
        self._seen = inputs[0] if detector.training and torch.is_grad_enabled() else None

    def _add_distillation(self, loss: nn.Module, inputs: tuple[Any, ...], output: LossOutput) -> LossOutput | None:
        if self._seen is None or self._teacher is None:
            return None
        with torch.no_grad():
            teacher = self._teacher(self._seen)
        self._seen = None
        term = self.distillation * distillation_loss(inputs[0], teacher)
        return output._replace(total=output.total + term, terms={**output.terms, "loss_distillation": term.detach()})

    # ----------------------------------------------------------------------------------------------- checkpoints
    def state_dict(self) -> dict[str, Any]:
        """Return the teacher's weights: those it started from are in no other place."""
        return {} if self._teacher is None else {"teacher": self._teacher.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the teacher of the run that is resumed."""
        if self._teacher is not None and "teacher" in state_dict:
            self._teacher.load_state_dict(state_dict["teacher"])

    # ------------------------------------------------------------------------------------------------------- end
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let ranges rest, and the loss be as it was."""
        if stage == "fit":
            self._leave(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Do so after an error or an interrupt too, when Lightning does not tear down."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._leave(pl_module)

    def _leave(self, pl_module: LightningModule) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._seen, self._quantizers, self._norms = [], None, [], []
        for quantizer in named_quantizers(pl_module).values():
            quantizer.momentum = 0.0


def _named(pl_module: LightningModule, name: str) -> Any:
    part = getattr(pl_module, name, None)
    if not isinstance(part, nn.Module):
        raise ConfigurationError(
            f"QuantizationAwareTraining needs {type(pl_module).__name__}.{name}, a module, and there is none: name "
            f"yours so."
        )
    return part


def _float_copy(detector: nn.Module) -> nn.Module:
    """Return a frozen copy that computes as before quantization."""
    teacher = copy.deepcopy(detector).eval().requires_grad_(False)
    parts = [part for part in teacher.modules() if isinstance(part, (ActivationQuantizer, QuantizedConvolution))]
    set_rounding(parts, [False] * len(parts))
    return teacher


def _exactly(batches: Iterable[Any], number: int) -> Iterable[Any]:
    """Yield so many batches, and ask for no more."""
    iterator = iter(batches)
    for _ in range(number):
        batch = next(iterator, None)
        if batch is None:
            raise ConfigurationError(f"images holds less than calibration_batches={number} batches: give more.")
        yield batch
