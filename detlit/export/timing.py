"""How fast a model is: in torch and in exported files, split by stage."""

import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from detlit.data.transforms.letterbox import letterbox
from detlit.export.detections import read_detections
from detlit.export.graph import DecodedDetector
from detlit.export.session import Session
from detlit.postprocess import NMSPostPredictionCallback
from detlit.structures import Preprocessing

__all__ = ["Timing", "format_timings", "time_model"]

Forward = Callable[[torch.Tensor], Any]


@dataclass(frozen=True)
class Timing:
    """Wall-clock time of one model at one size and number of images.

    Attributes:
        format: ``"torch"`` or that of the file.
        device: where it ran.
        size: (height, width) of the network input.
        batch: images at once.
        preprocess: median milliseconds of letterboxing a batch.
        forward: of the network, with decoding.
        postprocess: of suppression; nothing where it is in the file.
        median: of the whole, milliseconds per batch.
        p90: that 90 % of the batches do not exceed.
        images_per_second: by the median.
        memory: the most that was in use, in MiB: of the GPU, otherwise of the whole process since it began.
    """

    format: str
    device: str
    size: tuple[int, int]
    batch: int
    preprocess: float
    forward: float
    postprocess: float
    median: float
    p90: float
    images_per_second: float
    memory: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, rounded."""
        return {name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(self).items()}


def time_model(
    model: DecodedDetector | Session,
    image: NDArray[np.uint8],
    preprocessing: Preprocessing,
    *,
    batch: int = 1,
    rounds: int = 20,
    device: torch.device | None = None,
    format: str = "torch",
) -> Timing:
    """Measure a model, after three batches that warm it up.

    Args:
        model: a detector, or an exported file.
        image: ``(H, W, 3)`` uint8 RGB, repeated.
        preprocessing: how it becomes network input.
        batch: images at once.
        rounds: batches that are timed.
        device: of a detector; the CPU unless given.
        format: what to call it.
    """
    device = device or torch.device("cpu")
    forward, post = (_torch_stages if isinstance(model, DecodedDetector) else _session_stages)(model, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    times: list[tuple[float, float, float]] = []
    with torch.inference_mode():
        for _ in range(rounds + 3):
            start = time.perf_counter()
            canvases = np.stack([letterbox(image, preprocessing) for _ in range(batch)])
            images = torch.from_numpy(canvases).permute(0, 3, 1, 2)
            ready = time.perf_counter()
            outputs = forward(images)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            computed = time.perf_counter()
            post(outputs, images)
            times.append((ready - start, computed - ready, time.perf_counter() - computed))
    stages = [[1000 * value for value in values] for values in zip(*times[3:], strict=True)]
    totals = sorted(map(sum, zip(*stages, strict=True)))
    median = statistics.median(totals)
    return Timing(
        format,
        device.type,
        preprocessing.size,
        batch,
        preprocess=statistics.median(stages[0]),
        forward=statistics.median(stages[1]),
        postprocess=statistics.median(stages[2]),
        median=median,
        p90=totals[min(len(totals) - 1, int(0.9 * len(totals)))],
        images_per_second=1000 * batch / median,
        memory=_peak_memory(device),
    )


def format_timings(timings: Sequence[Timing]) -> str:
    """Return a table."""
    heads = ("format", "size", "batch", "pre ms", "forward", "post", "median", "p90", "images/s", "MiB")
    lines = [f"{heads[0]:14}{heads[1]:>9}" + "".join(f"{head:>10}" for head in heads[2:])]
    for each in timings:
        numbers = (each.preprocess, each.forward, each.postprocess, each.median, each.p90, each.images_per_second)
        row = f"{each.format:14}{f'{each.size[0]}x{each.size[1]}':>9}{each.batch:10}"
        lines.append(row + "".join(f"{number:10.2f}" for number in numbers) + f"{each.memory:10.0f}")
    return "\n".join(lines)


def _torch_stages(model: Any, device: torch.device) -> tuple[Forward, Callable[[Any, torch.Tensor], Any]]:
    callback = NMSPostPredictionCallback(score_threshold=0.25)
    return (lambda images: model(images.to(device))), lambda outputs, images: callback.suppress(*outputs)


def _session_stages(session: Any, device: torch.device) -> tuple[Forward, Callable[[Any, torch.Tensor], Any]]:
    callback = NMSPostPredictionCallback(**session.metadata["post_prediction"])
    nms, as_float = session.metadata["nms"], session.metadata["input"] == "float32"

    def forward(images: torch.Tensor) -> Any:
        return session.outputs((images.float() / 255 if as_float else images).contiguous().numpy())

    def post(outputs: Any, images: torch.Tensor) -> Any:
        if nms != "none":
            return read_detections(outputs, nms, len(images))
        size = (images.shape[2], images.shape[3])
        return callback.suppress(torch.from_numpy(outputs["boxes"]), torch.from_numpy(outputs["scores"]), size)

    return forward, post


def _peak_memory(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
