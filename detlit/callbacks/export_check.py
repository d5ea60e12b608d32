"""Find out before training that the detector can be exported."""

import tempfile
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from detlit.errors import ConfigurationError, ExportError
from detlit.export import DecodedDetector, export_onnx, open_exported
from detlit.export.graph import exportable

__all__ = ["ExportCheck"]


class ExportCheck(Callback):
    """Export the untrained detector when training starts and compare the file with torch: surprises come in minute one.

    It works on any LightningModule that has a :class:`~detlit.Detector` called ``detector``, takes about half a minute
    on the first process, and changes nothing.

    Args:
        dynamic: what the file shall take any amount of, as in :func:`~detlit.export_onnx`.
        nms: the suppression to put into the file.
        max_box: largest mean difference of the sides of all boxes, in pixels.
        max_score: largest difference of a score.

    Raises:
        ConfigurationError: when training starts: the module has no detector.
        ExportError: when training starts: the detector cannot be exported, or the file computes something else.
        MissingExtraError: when training starts: the packages of ONNX are not installed.
    """

    def __init__(
        self,
        dynamic: tuple[Literal["batch", "size"], ...] = ("batch", "size"),
        nms: Literal["none", "flat", "batch"] = "none",
        max_box: float = 0.1,
        max_score: float = 1e-3,
    ) -> None:
        self.dynamic = dynamic
        self.nms = nms
        self.max_box = max_box
        self.max_score = max_score

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Export, run and compare."""
        detector: Any = getattr(pl_module, "detector", None)
        if detector is None:
            raise ConfigurationError(
                f"{type(pl_module).__name__} has no detector to export: call it detector, or leave ExportCheck out."
            )
        if not trainer.is_global_zero or trainer.ckpt_path is not None:
            return  # a run that is resumed has been checked
        with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]), torch.no_grad():
            path = self._export(detector, Path(folder) / "model.onnx")
            self._compare(exportable(detector), path)

    def _export(self, detector: Any, path: Path) -> Path:
        try:
            return export_onnx(detector, path, dynamic=self.dynamic, nms=self.nms)
        except (RuntimeError, TypeError, NotImplementedError) as error:
            cause = str(error).strip().partition("\n")[0]
            raise ExportError(
                f"the detector cannot be exported to ONNX ({cause}): change the layer, or leave ExportCheck out."
            ) from error

    def _compare(self, reference: DecodedDetector, path: Path) -> None:
        """Compare all boxes and scores; detections of a network that knows nothing would say little."""
        session = open_exported(path, threads=1)
        height, width = reference.detector.preprocessing.size
        batch = 3 if "batch" in self.dynamic else 1
        generator = torch.Generator().manual_seed(0)
        shape = (batch, reference.detector.backbone.in_channels, height, width)
        images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        outputs = session.outputs(images.numpy())
        if self.nms != "none":
            return  # that it ran is what can be told
        boxes, scores = reference(images)
        box = float((torch.from_numpy(outputs["boxes"]) - boxes).abs().mean())
        score = float((torch.from_numpy(outputs["scores"]) - scores).abs().max())
        if not (box <= self.max_box and score <= self.max_score):
            raise ExportError(
                f"the exported detector differs from torch by {box:.3g} pixels on average (at most {self.max_box:g}) "
                f"and by {score:.3g} in scores (at most {self.max_score:g}): a layer computes something else in ONNX."
            )
