"""Run an exported file, with ONNX Runtime or OpenVINO."""

import json
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detlit.errors import CheckpointError, MissingExtraError

__all__ = ["ExportedModel", "OnnxSession", "OpenVinoSession"]


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
            self.model = core.compile_model(core.read_model(str(path)), "CPU", hints)
        except RuntimeError as error:
            raise CheckpointError(f"{path} cannot be run: {str(error).splitlines()[0]}") from error

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``boxes (B, A, 4)`` and ``scores (B, A, C)`` of images ``(B, in_channels, H, W)``."""
        outputs = self.model(images.cpu().numpy())
        return torch.from_numpy(outputs["boxes"].copy()), torch.from_numpy(outputs["scores"].copy())


def _decoded(entries: dict[str, str]) -> dict[str, Any]:
    """Return JSON entries as what they say, and other strings as they are."""
    decoded: dict[str, Any] = {}
    for name, text in entries.items():
        try:
            decoded[name] = json.loads(text)
        except json.JSONDecodeError:
            decoded[name] = text
    return decoded
