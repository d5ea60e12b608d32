"""Detections from a checkpoint, without a training config and without Lightning."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from detlit.data.images import read_image
from detlit.data.transforms.letterbox import letterbox
from detlit.errors import ConfigurationError, DatasetError
from detlit.models.checkpoint_entry import detector_from_checkpoint, read_checkpoint
from detlit.ops.coordinates import to_original_pixels
from detlit.postprocess import NMSPostPredictionCallback, PostPredictionCallback
from detlit.spec import build
from detlit.structures import Detection

__all__ = ["IMAGE_SUFFIXES", "Predictor", "Result", "find_images"]

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Files that a folder contributes."""

ImageLike: TypeAlias = NDArray[np.uint8] | str | Path
"""An image ``(H, W, 3)`` uint8 RGB, or its file."""


@dataclass(frozen=True)
class Result:
    """Detections in one image, best first.

    Attributes:
        boxes: ``(K, 4)`` float32 xyxy pixels of the original image, within it.
        scores: ``(K,)`` float32 in [0, 1].
        labels: ``(K,)`` int64.
        class_names: names of all classes.
        image: ``(H, W, 3)`` uint8 RGB, the original image.
        path: where the image came from, if from a file.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    image: NDArray[np.uint8]
    path: Path | None = None

    def draw(self) -> NDArray[np.uint8]:
        """Return the image ``(H, W, 3)`` uint8 RGB with its detections drawn on it."""
        from detlit.reports.draw import draw_boxes

        return draw_boxes(self.image, self.boxes, self.labels.tolist(), self.class_names, self.scores.tolist())


class Predictor:
    """Detect objects with a trained checkpoint; preprocessing, class names and thresholds come from it.

    The detector is fused fully and computes in channels_last, which takes about half the time on a CPU.

    Args:
        checkpoint: path of a detlit checkpoint.
        score_threshold: least score of a detection in [0, 1]; ``None`` takes that of a converted checkpoint, or 0.25.
        device: where to run, e.g. ``"cuda"``; ``None`` takes a GPU if there is one.
        allow_custom_code: also build classes from outside detlit and torch that the checkpoint names.

    Raises:
        CheckpointError: the checkpoint cannot be read or rebuilt.
        ConfigurationError: the device does not exist or cannot be used.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        *,
        score_threshold: float | None = None,
        device: str | None = None,
        allow_custom_code: bool = False,
    ) -> None:
        self.device = _usable_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        stored = read_checkpoint(checkpoint)
        detector = detector_from_checkpoint(stored, allow_custom_code=allow_custom_code).eval().fuse(full=True)
        self.detector = detector.to(self.device).to(memory_format=torch.channels_last)
        self.class_names = tuple(stored["detlit"]["class_names"])
        self.post_prediction_callback = _post_prediction_callback(stored, score_threshold, allow_custom_code)

    def __call__(self, images: ImageLike | Iterable[ImageLike], *, batch_size: int = 8) -> Iterator[Result]:
        """Return an iterator over one result per image, in order; it reads and detects as it goes.

        Args:
            images: ``(H, W, 3)`` uint8 RGB arrays, or paths of image files; may be an endless iterator, or one image.
            batch_size: images per forward pass.

        Raises:
            ConfigurationError: ``batch_size`` is not positive or, from the iterator, an image is of another kind.
            ImageReadError: from the iterator: a file is missing or no image.
        """
        if batch_size < 1:
            raise ConfigurationError(f"batch_size={batch_size} leaves no image in a batch: give 1 or more.")
        if isinstance(images, (np.ndarray, str, Path)):
            images = [images]
        return self._results(iter(images), batch_size)

    def _results(self, images: Iterator[ImageLike], batch_size: int) -> Iterator[Result]:
        """Yield the results of :meth:`__call__`."""
        while chunk := list(islice(images, batch_size)):
            paths = [Path(image) if isinstance(image, (str, Path)) else None for image in chunk]
            arrays = [read_image(image) if isinstance(image, (str, Path)) else _checked(image) for image in chunk]
            for array, path, detection in zip(arrays, paths, self._detect(arrays), strict=True):
                yield Result(
                    boxes=detection["boxes"].cpu().numpy(),
                    scores=detection["scores"].cpu().numpy(),
                    labels=detection["labels"].cpu().numpy(),
                    class_names=self.class_names,
                    image=array,
                    path=path,
                )

    @torch.inference_mode()
    def _detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Detection]:
        """Letterbox images, run the detector, and return detections in original pixels."""
        preprocessing = self.detector.preprocessing
        canvases = np.stack([letterbox(image, preprocessing) for image in images])
        batch = torch.from_numpy(canvases).permute(0, 3, 1, 2).to(self.device)
        detections = self.post_prediction_callback(self.detector(batch))
        geometry = torch.tensor([preprocessing.geometry(*image.shape[:2]) for image in images], dtype=torch.float64)
        return to_original_pixels(detections, geometry, [image.shape[:2] for image in images])


def find_images(source: str | Path) -> list[Path]:
    """Return the image files a path stands for: itself, or the images of a folder, sorted, without its subfolders.

    Raises:
        DatasetError: nothing is there, or a folder without images.
    """
    source = Path(source)
    if source.is_dir():
        found = sorted(path for path in source.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
        if not found:
            raise DatasetError(f"no image in folder {source}: looked for {', '.join(IMAGE_SUFFIXES)}.")
        return found
    if not source.exists():
        raise DatasetError(f"there is no file or folder {source}: check --source.")
    return [source]


def _usable_device(name: str) -> torch.device:
    """Return a device that a tensor has been to."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError) as error:  # the latter from a torch built without the device
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise ConfigurationError(
            f"device {name!r} cannot be used here ({reason}): choose another, e.g. cpu."
        ) from error
    return device


def _checked(image: Any) -> NDArray[np.uint8]:
    """Return the array if it is an image."""
    if not isinstance(image, np.ndarray):
        raise ConfigurationError(f"an image is a {type(image).__name__}: give a path or an array, uint8 (H, W, 3) RGB.")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ConfigurationError(f"an image is {image.dtype} {image.shape}: convert it to uint8 (H, W, 3) RGB.")
    return image


def _post_prediction_callback(
    stored: dict[str, Any], score_threshold: float | None, allow_custom_code: bool
) -> PostPredictionCallback:
    """Return the checkpoint's post-prediction callback with another score threshold, one to show detections by."""
    if score_threshold is None:
        score_threshold = stored["detlit"].get("score_threshold", 0.25)
    spec = stored["detlit"]["module"]["post_prediction_callback"]
    if spec is None:
        return NMSPostPredictionCallback(score_threshold=score_threshold)
    spec = {**spec, "init_args": {**spec["init_args"], "score_threshold": score_threshold}}
    callback: PostPredictionCallback = build(spec, allow_custom_code=allow_custom_code)
    return callback
