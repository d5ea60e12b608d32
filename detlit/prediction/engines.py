"""What computes detections from a batch: a detector in torch, or an exported file in its runtime."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from detlit.errors import ConfigurationError
from detlit.models.detector import Detector
from detlit.postprocess import NMSPostPredictionCallback, PostPredictionCallback
from detlit.structures import Detection

__all__ = ["ClassThresholds", "Engine", "ExportedEngine", "Precision", "TorchEngine", "usable_device"]

Precision = Literal["float32", "bfloat16", "float16"]


class ClassThresholds:
    """The least score of each class; that of a class nobody asked for is 1, which no score exceeds.

    Args:
        class_names: names of all classes.
        score_threshold: of all classes, or by name; those not named have ``default``.
        default: see above.
        classes: names of the classes to detect; ``None`` for all.

    Attributes:
        least: the lowest of them.
        differ: whether some class has another threshold.

    Raises:
        ConfigurationError: an unknown class, or a threshold outside [0, 1].
    """

    def __init__(
        self,
        class_names: Sequence[str],
        score_threshold: float | Mapping[str, float] | None,
        default: float,
        classes: Sequence[str] | None = None,
    ) -> None:
        by_name = score_threshold if isinstance(score_threshold, Mapping) else {}
        unknown = sorted({*by_name, *(class_names if classes is None else classes)} - set(class_names))
        if unknown:
            raise ConfigurationError(f"class {', '.join(unknown)} is unknown: choose among {', '.join(class_names)}.")
        common = default if score_threshold is None or isinstance(score_threshold, Mapping) else score_threshold
        wrong = [value for value in (common, *by_name.values()) if not 0 <= value <= 1]
        if wrong:
            raise ConfigurationError(f"score_threshold={wrong[0]} is no threshold: choose a number between 0 and 1.")
        wanted = set(class_names if classes is None else classes)
        values = [by_name.get(name, common) if name in wanted else 1.0 for name in class_names]
        self.values = torch.tensor(values, dtype=torch.float32)
        self.least = min(values, default=common)
        self.differ = len(set(values)) > 1

    def filter(self, scores: Tensor) -> Tensor:
        """Return which scores ``(..., C)`` in [0, 1] are above the threshold of their class."""
        return scores.float() > self.values.to(scores.device)

    def filter_detection(self, detection: Detection) -> Detection:
        """Return the detections above the thresholds of their classes."""
        scores, labels = detection["scores"], detection["labels"]
        keep = scores > self.values.to(scores.device)[labels]
        return Detection(boxes=detection["boxes"][keep], scores=scores[keep], labels=labels[keep])


class Engine(Protocol):
    """What detects objects in a batch of letterboxed images.

    Attributes:
        any_size: it takes images of any size that fits its strides.
        any_batch: it takes any number of images at once, otherwise one.
        thresholds: the least score of each class.
    """

    thresholds: ClassThresholds
    any_size: bool
    any_batch: bool

    def detect(self, images: Tensor) -> list[Detection]:
        """Return the detections of ``images (B, 3, H, W)`` uint8, on the CPU, in their pixels, best first."""


class TorchEngine:
    """A detector in torch, fused fully and in channels_last, which takes about half the time on a CPU.

    Args:
        detector: it is changed.
        callback: chooses the detections.
        thresholds: of the classes.
        device: where to compute.
        precision: of the convolutions; boxes and scores are computed in float32.

    Raises:
        ConfigurationError: a precision that the device does not have.
    """

    any_size = any_batch = True

    def __init__(
        self,
        detector: Detector,
        callback: PostPredictionCallback,
        thresholds: ClassThresholds,
        device: torch.device,
        precision: Precision = "float32",
    ) -> None:
        if precision not in ("float32", "bfloat16", "float16") or (precision == "float16" and device.type == "cpu"):
            raise ConfigurationError(
                f"precision {precision!r} cannot be used on {device.type}: "
                "choose float32, bfloat16, or float16 on a GPU."
            )
        if hasattr(detector, "fuse"):
            detector = detector.eval().fuse(full=True)
        self.detector = detector.to(device).to(memory_format=torch.channels_last)
        self.callback = callback
        self.thresholds = thresholds
        self.device = device
        self.precision: Precision = precision

    @torch.inference_mode()
    def detect(self, images: Tensor) -> list[Detection]:
        """Return the detections of ``images (B, 3, H, W)`` uint8, on the CPU, in their pixels, best first."""
        with self._autocast():
            predictions = self.detector(images.to(self.device, non_blocking=True))
        if self.thresholds.differ:
            wanted = self.thresholds.filter(predictions.cls_logits.float().sigmoid())
            predictions = predictions._replace(cls_logits=predictions.cls_logits.masked_fill(~wanted, -torch.inf))
        return [_on_host(detection) for detection in self.callback(predictions)]

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, getattr(torch, self.precision))


class ExportedEngine:
    """A file that detlit exported, in its runtime.

    Args:
        session: the file, see :func:`detlit.export.open_exported`.
        thresholds: of the classes.
        nms_threshold: of two boxes with a larger IoU the better one stays; ``None`` takes that in the file.

    Raises:
        ConfigurationError: a threshold that the suppression within the file rules out.
    """

    def __init__(self, session: Any, thresholds: ClassThresholds, nms_threshold: float | None = None) -> None:
        metadata = session.metadata
        self.session = session
        self.thresholds = thresholds
        self.nms = metadata.get("nms", "none")
        self.any_batch = "batch" in metadata.get("dynamic", ["batch", "size"])
        self.any_size = "size" in metadata.get("dynamic", ["batch", "size"])
        arguments = dict(metadata.get("post_prediction", {}))
        if self.nms != "none":
            _refuse_to_find_more(arguments, thresholds.least, nms_threshold)
        if nms_threshold is not None:
            arguments["nms_threshold"] = nms_threshold
        self.callback = NMSPostPredictionCallback(**{**arguments, "score_threshold": thresholds.least})
        self.as_float = metadata.get("input") == "float32"

    def detect(self, images: Tensor) -> list[Detection]:
        """Return the detections of ``images (B, 3, H, W)`` uint8, on the CPU, in their pixels, best first."""
        inputs = images.float().div_(255) if self.as_float else images
        outputs = self.session.outputs(inputs.contiguous().numpy())
        if self.nms == "none":
            boxes, scores = (torch.from_numpy(outputs[name]) for name in ("boxes", "scores"))
            if self.thresholds.differ:
                scores = scores * self.thresholds.filter(scores)
            return self.callback.suppress(boxes, scores, (images.shape[2], images.shape[3]))
        from detlit.export.detections import read_detections

        found = read_detections(outputs, self.nms, len(images))
        return [self.thresholds.filter_detection(detection) for detection in found]


def _refuse_to_find_more(arguments: Mapping[str, Any], score_threshold: float, nms_threshold: float | None) -> None:
    if score_threshold < arguments["score_threshold"] or nms_threshold not in (None, arguments["nms_threshold"]):
        raise ConfigurationError(
            f"the file holds its suppression, with score_threshold={arguments['score_threshold']} and nms_threshold="
            f"{arguments['nms_threshold']}: raise score_threshold, leave nms_threshold, or export with --nms none."
        )


def _on_host(detection: Detection) -> Detection:
    return Detection(boxes=detection["boxes"].cpu(), scores=detection["scores"].cpu(), labels=detection["labels"].cpu())


def usable_device(name: str | None) -> torch.device:
    """Return a device that a tensor has been to; ``None`` takes a GPU if there is one.

    Raises:
        ConfigurationError: the device does not exist or cannot be used.
    """
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError) as error:  # the latter from a torch built without the device
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise ConfigurationError(
            f"device {name!r} cannot be used here ({reason}): choose another, e.g. cpu."
        ) from error
    return device
