"""The Trainer of the command line: limits that parse right, a precision that suits the machine, loggers."""

from importlib.util import find_spec
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_warn

__all__ = ["DetlitTrainer", "auto_precision", "default_loggers"]


class DetlitTrainer(Trainer):
    """Lightning's Trainer with limits that parse right and ``precision="auto"``.

    Upstream's annotation of the limits lets the parser turn ``limit_train_batches: 1``, one batch, into 1.0, 100 %.

    Args:
        precision: as in Lightning, or ``"auto"``: bf16-mixed where the hardware computes bf16, otherwise 32-true.
        sync_batchnorm: normalise over the batches of all processes; left out on a CPU, with a warning.
        limit_train_batches: batches of an epoch (int) or their share (float), as the limits below.
        limit_val_batches: batches of a validation run.
        limit_test_batches: batches of a test run.
        limit_predict_batches: batches of a predict run.
        overfit_batches: batches to train and validate on.
        val_check_interval: batches (int) or share of an epoch (float) between validation runs.
        **kwargs: as in Lightning.
    """

    def __init__(
        self,
        *,
        precision: str | int | None = None,
        sync_batchnorm: bool = False,
        limit_train_batches: int | float | None = None,
        limit_val_batches: int | float | None = None,
        limit_test_batches: int | float | None = None,
        limit_predict_batches: int | float | None = None,
        overfit_batches: int | float = 0.0,
        val_check_interval: int | float | None = None,
        **kwargs: Any,
    ) -> None:
        if sync_batchnorm and _on_cpu(kwargs.get("accelerator", "auto")):
            rank_zero_warn("trainer.sync_batchnorm=true is left out: torch synchronises batch norm on GPUs alone.")
            sync_batchnorm = False
        if precision == "auto":
            precision = auto_precision(kwargs.get("accelerator", "auto"))
        super().__init__(
            precision=precision,  # type: ignore[arg-type]
            sync_batchnorm=sync_batchnorm,
            limit_train_batches=limit_train_batches,
            limit_val_batches=limit_val_batches,
            limit_test_batches=limit_test_batches,
            limit_predict_batches=limit_predict_batches,
            overfit_batches=overfit_batches,
            val_check_interval=val_check_interval,
            **kwargs,
        )


def auto_precision(accelerator: Any = "auto") -> str:
    """Return ``"bf16-mixed"`` where the accelerator computes bf16 in hardware, otherwise ``"32-true"``."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    on_cpu = _on_cpu(accelerator)
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # private, but the only way to ask torch
    if on_cpu and any(getattr(torch.cpu, probe, lambda: False)() for probe in probes):
        return "bf16-mixed"
    return "32-true"


def _on_cpu(accelerator: Any) -> bool:
    automatic = not (torch.cuda.is_available() or torch.backends.mps.is_available())
    return accelerator == "cpu" or isinstance(accelerator, CPUAccelerator) or (accelerator == "auto" and automatic)


def default_loggers(folder: str) -> list[Logger]:
    """Return a CSV logger, and a TensorBoard one where it is installed, that share a run folder ``version_N``."""
    csv = CSVLogger(folder, name="")
    if find_spec("tensorboard") is None:
        return [csv]
    return [csv, _TensorBoard(folder, name="", version=csv.version)]


class _TensorBoard(TensorBoardLogger):
    """A logger without ``hparams.yaml``, which would be empty: ``config.yaml`` holds the parameters."""

    def save(self) -> None:
        """Write nothing."""
