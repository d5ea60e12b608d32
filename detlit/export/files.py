"""Write a detector into a file of any format that it can be run from."""

import json
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

from detlit.errors import ConfigurationError, DetlitError, MissingExtraError
from detlit.export.graph import exportable
from detlit.export.onnx_file import Dynamic, check_options, example_images, export_onnx, file_metadata, noted, silence
from detlit.export.suppression import NMSFormat, Suppression
from detlit.models.detector import Detector
from detlit.quantization.calibration import named_quantizers

__all__ = ["SUFFIXES", "Format", "export_file", "files_of", "named_if_good"]

Format = Literal["onnx", "openvino", "torch_export", "torchscript"]

SUFFIXES: dict[Format, str] = {
    "onnx": ".onnx",
    "openvino": ".xml",
    "torch_export": ".pt2",
    "torchscript": ".torchscript",
}
"""Of the files of each format; OpenVINO keeps the weights beside its file, in one that ends in ``.bin``."""


def files_of(path: Path) -> list[Path]:
    """Return the files of an exported detector: OpenVINO's weights are in one of their own."""
    weights = path.with_suffix(".bin")
    return [path, weights] if path.suffix == ".xml" and weights.exists() else [path]


@contextmanager
def named_if_good(path: Path) -> Iterator[Path]:
    """Give the files written within their name at the end, unless an error says that they are not good.

    Yields:
        Where to write until then, ``NAME.unverified.SUFFIX``, and where what is not good stays.
    """
    unverified = path.with_name(f"{path.stem}.unverified{path.suffix}")  # OpenVINO wants the suffix last
    try:
        yield unverified
    except DetlitError as error:
        kept = f" The file is kept as {unverified}." if unverified.exists() else ""
        raise type(error)(f"{error}{kept}") from error
    for part in files_of(unverified):
        part.replace(path.with_suffix(part.suffix))


def export_file(
    detector: Detector,
    path: str | Path,
    *,
    format: Format = "onnx",
    class_names: Sequence[str] = (),
    dynamic: Collection[Dynamic] = ("batch", "size"),
    input_dtype: Literal["uint8", "float32"] = "uint8",
    nms: NMSFormat = "none",
    suppression: Suppression | None = None,
    half: bool = False,
    opset: int | None = None,
) -> Path:
    """Write a detector, with preprocessing, decoding and all that prediction needs to know, into a file.

    Args:
        detector: it is not changed.
        path: the file to write; its suffix becomes that of the format.
        format: of the file.
        class_names: names of the labels.
        dynamic: what the file takes any amount of.
        input_dtype: of the images: bytes, or floating point in [0, 1].
        nms: put the suppression into the file, in ONNX and OpenVINO.
        suppression: its settings.
        half: weights in float16; ONNX Runtime and torch also compute so, OpenVINO as its device likes.
        opset: version of ONNX' operators; ``None`` takes torch's choice.

    Returns:
        The path.

    Raises:
        ConfigurationError: something that the format cannot be; the message says what can.
        MissingExtraError: a package that the format needs is not installed.
    """
    check_options(dynamic, input_dtype, nms)
    if format not in SUFFIXES:
        raise ConfigurationError(f"format={format!r} is unknown: choose among {', '.join(SUFFIXES)}.")
    path = Path(path).with_suffix(SUFFIXES[format])
    settings = suppression or Suppression()
    if format == "onnx":
        return export_onnx(
            detector,
            path,
            class_names=class_names,
            dynamic=dynamic,
            input_dtype=input_dtype,
            nms=nms,
            suppression=settings,
            half=half,
            opset=opset,
        )
    _refuse(detector, format, nms, half, opset)
    more = {"dynamic": list(dynamic), "nms": nms, **noted(settings)}
    metadata = file_metadata(detector, class_names, input_dtype, more)
    path.parent.mkdir(parents=True, exist_ok=True)
    if format == "openvino":
        with tempfile.TemporaryDirectory() as folder:
            onnx_path = export_onnx(
                detector,
                Path(folder) / "model.onnx",
                dynamic=dynamic,
                input_dtype=input_dtype,
                nms=nms,
                suppression=settings,
            )
            return _write_openvino(onnx_path, path, metadata, half)
    return _write_torch(detector, path, format, dynamic, input_dtype, half, metadata)


def _refuse(detector: Detector, format: Format, nms: NMSFormat, half: bool, opset: int | None) -> None:
    if opset is not None:
        raise ConfigurationError(f"opset={opset} is of ONNX, the format is {format}: leave it out.")
    quantizers = named_quantizers(detector)
    if format == "openvino":
        if any(quantizer.symmetric for quantizer in quantizers.values()):
            raise ConfigurationError(
                "OpenVINO computes the signed integers of backend tensorrt wrongly: quantize with --backend cpu."
            )
        if half and quantizers:
            raise ConfigurationError("a quantized detector computes with integers: leave half=True out.")
        return
    if nms != "none":
        raise ConfigurationError(
            f"nms={nms!r} is for onnx and openvino, the format is {format}: choose nms='none' and suppress outside."
        )
    if quantizers:
        raise ConfigurationError(f"{format} cannot hold a quantized detector: choose onnx or openvino.")


def _write_openvino(onnx_path: Path, path: Path, metadata: dict[str, str], half: bool) -> Path:
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("OpenVINO is not installed: pip install 'detlit[openvino]'.") from error
    model = openvino.convert_model(onnx_path)
    for name, value in metadata.items():
        model.set_rt_info(value, ["detlit", name])
    openvino.save_model(model, path, compress_to_fp16=half)
    return path


def _write_torch(
    detector: Detector,
    path: Path,
    format: Format,
    dynamic: Collection[str],
    input_dtype: str,
    half: bool,
    metadata: dict[str, str],
) -> Path:
    model, images = exportable(detector, half), example_images(detector, dynamic, input_dtype)
    extra: dict[str, Any] = {"metadata.json": json.dumps(metadata)}
    with silence(), torch.no_grad():
        if format == "torchscript":
            traced: Any = torch.jit.trace(model, (images,))  # type: ignore[no-untyped-call]
            torch.jit.save(traced, str(path), _extra_files=extra)
        else:
            free: Any = torch.export.Dim.DYNAMIC
            axes = {0: free} if "batch" in dynamic else {}
            axes |= {2: free, 3: free} if "size" in dynamic else {}
            program = torch.export.export(model, (images,), dynamic_shapes={"images": axes} if axes else None)
            torch.export.save(program, path, extra_files=extra)
    return path
