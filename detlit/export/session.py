"""Run an exported file, with ONNX Runtime or OpenVINO."""

import json
import warnings
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detlit.errors import CheckpointError, MissingExtraError

__all__ = ["ExportedModel", "OnnxSession", "OpenVinoSession", "Session", "TorchSession", "open_exported"]


class ExportedModel(Protocol):
    """What predicts as :class:`~detlit.export.DecodedDetector` does."""

    name: str

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``boxes (B, A, 4)`` and ``scores (B, A, C)`` of images ``(B, in_channels, H, W)``."""


class OnnxSession:
    """An ONNX file in ONNX Runtime.

    Args:
        path: the file.
        threads: processor cores to use; ``None`` for all.
        optimize: let the runtime change the graph; without, the operators run as they stand in the file.
        optimized_path: where to write what the runtime made of the graph; nowhere unless given.

    Attributes:
        metadata: the entries of the file, JSON decoded.

    Raises:
        CheckpointError: the file is missing or cannot be read.
        MissingExtraError: ONNX Runtime is not installed.
    """

    name = "ONNX Runtime"

    def __init__(
        self,
        path: str | Path,
        *,
        threads: int | None = None,
        optimize: bool = True,
        optimized_path: str | Path | None = None,
    ) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError("running an ONNX file needs onnxruntime: pip install 'detlit[onnx]'.") from error
        if not Path(path).is_file():
            raise CheckpointError(f"there is no file {path}: check the path.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3
        # Threads that spin while they wait stall everything else, and on a busy machine each other.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if not optimize:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        if optimized_path is not None:
            options.optimized_model_filepath = str(optimized_path)
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime's errors share no base class
            raise CheckpointError(f"{path} cannot be run: {str(error).splitlines()[0]}") from error
        self.metadata = _decoded(self.session.get_modelmeta().custom_metadata_map)

    def outputs(self, images: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return all outputs of the file by name."""
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, {"images": images}), strict=True))

    def run(self, images: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return ``boxes (B, A, 4)`` and ``scores (B, A, C)`` of images ``(B, in_channels, H, W)``."""
        boxes, scores = self.session.run(["boxes", "scores"], {"images": images})
        return boxes, scores

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return boxes and scores as tensors, see :meth:`run`."""
        boxes, scores = self.run(images.cpu().numpy())
        return torch.from_numpy(boxes), torch.from_numpy(scores)


class OpenVinoSession:
    """An ONNX file, or OpenVINO's own format, in OpenVINO on the CPU, in float32 where it is not quantized.

    Args:
        path: the file.
        threads: processor cores to use; ``None`` for all.

    Raises:
        CheckpointError: the file is missing or cannot be read.
        MissingExtraError: OpenVINO is not installed.
    """

    name = "OpenVINO"

    def __init__(self, path: str | Path, *, threads: int | None = None) -> None:
        try:
            import openvino
        except ImportError as error:
            raise MissingExtraError("OpenVINO is not installed: pip install 'detlit[openvino]'.") from error
        if not Path(path).is_file():
            raise CheckpointError(f"there is no file {path}: check the path.")
        hints: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}  # else bfloat16 where the processor has it
        if threads is not None:
            hints["INFERENCE_NUM_THREADS"] = threads
        try:
            core = openvino.Core()
            model = core.read_model(str(path))
            self.model = core.compile_model(model, "CPU", hints)
        except RuntimeError as error:
            raise CheckpointError(f"{path} cannot be run: {str(error).splitlines()[0]}") from error
        self.metadata = _decoded({name: str(model.get_rt_info(["detlit", name]).value) for name in _own(model)})

    def outputs(self, images: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return all outputs of the file by name."""
        found = self.model(images)
        return {output.any_name: found[output].copy() for output in self.model.outputs}

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``boxes (B, A, 4)`` and ``scores (B, A, C)`` of images ``(B, in_channels, H, W)``."""
        outputs = self.model(images.cpu().numpy())
        return torch.from_numpy(outputs["boxes"].copy()), torch.from_numpy(outputs["scores"].copy())


class TorchSession:
    """A program of torch.export (``.pt2``) or TorchScript (``.torchscript``) that detlit wrote, on the CPU.

    Args:
        path: the file.

    Attributes:
        metadata: the entries of the file, JSON decoded.

    Raises:
        CheckpointError: the file is missing or cannot be read.
    """

    name = "torch"

    def __init__(self, path: str | Path) -> None:
        if not Path(path).is_file():
            raise CheckpointError(f"there is no file {path}: check the path.")
        extra: dict[str, Any] = {"metadata.json": ""}
        try:
            if Path(path).suffix == ".pt2":
                self.program: Any = torch.export.load(path, extra_files=extra).module()
            else:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", FutureWarning)  # that TorchScript is deprecated
                    self.program = torch.jit.load(  # type: ignore[no-untyped-call]
                        str(path), map_location="cpu", _extra_files=extra
                    )
        except (RuntimeError, ValueError, OSError, KeyError) as error:
            raise CheckpointError(f"{path} cannot be run: {str(error).strip().splitlines()[0]}") from error
        self.metadata = _decoded(json.loads(extra["metadata.json"] or "{}"))

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``boxes (B, A, 4)`` and ``scores (B, A, C)`` of images ``(B, in_channels, H, W)``."""
        boxes, scores = self.program(images)
        return boxes, scores

    def outputs(self, images: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return all outputs of the file by name."""
        boxes, scores = self(torch.from_numpy(images))
        return {"boxes": boxes.numpy(), "scores": scores.numpy()}


Session = OnnxSession | OpenVinoSession | TorchSession
"""An exported file in its runtime."""


def open_exported(path: str | Path, *, threads: int | None = None) -> Session:
    """Open an exported file in the runtime that its suffix names.

    Args:
        path: a ``.onnx``, ``.xml``, ``.pt2`` or ``.torchscript`` file that detlit wrote.
        threads: processor cores to use; ``None`` for all; torch's own number for its programs.

    Raises:
        CheckpointError: the file is missing, cannot be read, or was not written by detlit.
        MissingExtraError: the runtime is not installed.
    """
    suffix = Path(path).suffix.lower()
    session: Session
    if suffix == ".onnx":
        session = OnnxSession(path, threads=threads)
    elif suffix == ".xml":
        session = OpenVinoSession(path, threads=threads)
    else:
        session = TorchSession(path)
    if "preprocessing" not in session.metadata:
        raise CheckpointError(
            f"{path} was not written by detlit, it does not say how images become its input: export it."
        )
    return session


def _own(model: Any) -> list[str]:
    """Return the names of the entries that detlit wrote into an OpenVINO model."""
    return list(model.rt_info["detlit"]) if model.has_rt_info(["detlit"]) else []


def _decoded(entries: dict[str, str]) -> dict[str, Any]:
    """Return JSON entries as what they say, and other strings as they are."""
    decoded: dict[str, Any] = {}
    for name, text in entries.items():
        try:
            decoded[name] = json.loads(text)
        except json.JSONDecodeError:
            decoded[name] = text
    return decoded
