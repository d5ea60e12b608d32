"""Write a detector into an ONNX file."""

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from detlit import __version__
from detlit.errors import ConfigurationError, MissingExtraError
from detlit.export.graph import exportable
from detlit.export.suppression import NMSFormat, SuppressedDetector, Suppression, output_names, translation_table
from detlit.models.class_names import placeholder_names
from detlit.models.detector import Detector
from detlit.quantization.calibration import named_quantizers, needs_calibration

__all__ = ["Dynamic", "export_onnx"]

Dynamic = Literal["batch", "size"]
"""What an exported graph takes any amount of: images in a batch, pixels in height and width."""

INPUT = "images"
"""Name of the graph's input."""


def export_onnx(
    detector: Detector,
    path: str | Path,
    *,
    class_names: Sequence[str] = (),
    metadata: Mapping[str, Any] | None = None,
    dynamic: Collection[Dynamic] = ("batch", "size"),
    input_dtype: Literal["uint8", "float32"] = "uint8",
    nms: NMSFormat = "none",
    suppression: Suppression | None = None,
    half: bool = False,
    opset: int | None = None,
) -> Path:
    """Write a detector, with preprocessing and decoding, into one ONNX file; a quantized one with int8 weights.

    The input is ``images (B, in_channels, H, W)``, the outputs are ``boxes (B, A, 4)`` in pixels of the input and
    ``scores (B, A, C)``, float32: see :class:`~detlit.export.DecodedDetector`. The file's metadata say how images
    become input and what the labels are called. It is written whole or not at all; compare it with the detector by
    :func:`~detlit.export.verify`.

    Args:
        detector: it is not changed.
        path: the file to write.
        class_names: names of the labels.
        metadata: more entries, such as thresholds; what is no string becomes JSON.
        dynamic: what the graph takes any amount of; ``()`` fixes one image of the preprocessing's size.
        input_dtype: of the images: bytes, or floating point in [0, 1].
        nms: put the suppression into the graph, whose outputs then are those of
            :class:`~detlit.export.suppression.SuppressedDetector`.
        suppression: its settings, also noted where the reader of the file applies them; ``None`` for the defaults.
        half: compute in float16, but boxes and scores in float32.
        opset: version of ONNX' operators; ``None`` takes torch's choice.

    Returns:
        The path.

    Raises:
        ConfigurationError: an activation without a range, an unknown argument, or a quantized detector in half.
        MissingExtraError: onnx or onnxscript is not installed, or torch is older than 2.8.
    """
    check_options(dynamic, input_dtype, nms)
    if needs_calibration(detector):
        raise ConfigurationError("the detector is quantized but not calibrated: call detlit.quantization.calibrate.")
    if half and named_quantizers(detector):
        raise ConfigurationError("a quantized detector computes with integers: leave half=True out.")
    onnx = _require_onnx()
    from detlit.export.rewrites import quantize_choices, scale_residuals, strip_debug_information

    suppression = suppression or Suppression()
    decoded = exportable(detector, half=half)
    graph = decoded if nms == "none" else SuppressedDetector(decoded, suppression, nms)
    program = _traced(graph, example_images(detector, dynamic, input_dtype), tuple(dynamic), output_names(nms), opset)
    model = program.model_proto
    strip_debug_information(model)
    scale_residuals(model.graph)
    quantize_choices(model.graph)
    model.producer_name, model.producer_version = "detlit", __version__
    more = {"dynamic": list(dynamic), "nms": nms, **noted(suppression), **(metadata or {})}
    onnx.helper.set_model_props(model, file_metadata(detector, class_names, input_dtype, more))
    onnx.checker.check_model(model, full_check=True)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(model.SerializeToString())
    part.replace(path)
    return path


def check_options(dynamic: Collection[str], input_dtype: str, nms: str) -> None:
    """Refuse what no exported file can be."""
    unknown = [name for name in dynamic if name not in ("batch", "size")]
    if unknown or input_dtype not in ("uint8", "float32") or nms not in ("none", "flat", "batch"):
        raise ConfigurationError(
            f"dynamic={list(dynamic)}, input_dtype={input_dtype!r}, nms={nms!r} is unknown: choose among 'batch' and "
            "'size', 'uint8' or 'float32', and 'none', 'flat' or 'batch'."
        )


def _require_onnx() -> Any:
    try:
        import onnx
        import onnxscript  # noqa: F401 - torch's exporter needs it
    except ImportError as error:
        raise MissingExtraError(f"export needs {error.name}: pip install 'detlit[onnx]'.") from error
    if not hasattr(torch.onnx, "ops"):
        raise MissingExtraError(f"export needs torch 2.8 or later and this is {torch.__version__}: upgrade.")
    return onnx


def example_images(detector: Detector, dynamic: Collection[str], input_dtype: str) -> torch.Tensor:
    """Return images to trace a detector with."""
    height, width = detector.preprocessing.size
    images = torch.zeros(2 if "batch" in dynamic else 1, detector.backbone.in_channels, height, width)
    return images.to(getattr(torch, input_dtype))


def _traced(
    model: nn.Module, images: torch.Tensor, dynamic: Sequence[str], outputs: Sequence[str], opset: int | None
) -> Any:
    """Return torch's ONNX program of a model."""
    table = translation_table() if isinstance(model, SuppressedDetector) else None
    axes: dict[int, str] = {0: "batch"} if "batch" in dynamic else {}
    if "size" in dynamic:
        axes |= {2: "height", 3: "width"}
    with silence():
        return torch.onnx.export(
            model,
            (images,),
            input_names=[INPUT],
            output_names=list(outputs),
            dynamic_shapes={"images": axes} if axes else None,
            opset_version=opset,
            custom_translation_table=table,
            dynamo=True,
            external_data=False,
            verbose=False,
        )


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep the exporter's progress and advice, which nobody can act on, off the terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def noted(suppression: Suppression) -> dict[str, Any]:
    """Return the metadata of a suppression."""
    return {"post_prediction": suppression.to_dict(), "score_threshold": suppression.score_threshold}


def file_metadata(
    detector: Detector, class_names: Sequence[str], input_dtype: str, more: Mapping[str, Any]
) -> dict[str, str]:
    """Return what a reader of the file needs to know, as strings."""
    entries = {
        "detlit": __version__,
        "preprocessing": detector.preprocessing.to_dict(),
        "class_names": list(class_names) or list(placeholder_names(detector.num_classes)),
        "input": input_dtype,
        **more,
    }
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in entries.items()}
