"""Detections from a checkpoint or an exported file, without a training config and without Lightning."""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from detlit.data.transforms.letterbox import resized
from detlit.errors import ConfigurationError
from detlit.models.checkpoint_entry import detector_from_checkpoint, read_checkpoint
from detlit.models.class_names import placeholder_names
from detlit.models.detector import Detector
from detlit.ops.coordinates import to_original_pixels
from detlit.postprocess.stored import stored_callback
from detlit.prediction.canvases import network_input
from detlit.prediction.engines import (
    ClassThresholds,
    Engine,
    ExportedEngine,
    Precision,
    TorchEngine,
    usable_device,
)
from detlit.prediction.prefetch import read_ahead
from detlit.prediction.results import Result
from detlit.prediction.sources import ChannelOrder, Frame, OnBroken, Source, read_frames
from detlit.prediction.tiling import Tiles, Window, merge_tiles
from detlit.structures import Detection, Preprocessing

__all__ = ["Predictor", "Result", "Tiles"]

EXPORTED_SUFFIXES = (".onnx", ".xml", ".pt2", ".torchscript")
"""Files that are run, not rebuilt."""

SCORE_THRESHOLD = 0.25
"""To show detections by, where the file does not say."""

Item = TypeVar("Item")


class _Chunk(NamedTuple):
    """Images ready for the network.

    Attributes:
        frames: the images.
        windows: the parts of each that are looked at.
        batches: network input and geometry of all parts, one after another.
    """

    frames: list[Frame]
    windows: list[list[Window]]
    batches: list[tuple[Tensor, Tensor]]


class Predictor:
    """Detect objects with a checkpoint or an exported file; preprocessing, class names and thresholds come from it.

    A detector is fused fully and computes in channels_last, which takes about half the time on a CPU.

    Args:
        model: path of a detlit checkpoint, of an exported ``.onnx``, ``.xml``, ``.pt2`` or ``.torchscript`` file, or a
            detector, which is copied.
        score_threshold: least score of a detection in [0, 1], of all classes or by class name; those without take that
            of the file, or 0.25.
        nms_threshold: of two boxes with a larger IoU the better one stays; ``None`` takes that of the file.
        classes: names of the classes to detect; ``None`` for all.
        device: where to run, e.g. ``"cuda"``; ``None`` takes a GPU if there is one. Exported files run on the CPU.
        precision: of a detector's convolutions; ``"bfloat16"`` is several times faster on processors that have it.
        image_size: (height, width) of the network input instead of the one trained with.
        rectangular: pad no more than the images of a batch need; several are best of similar shape.
        tiles: look at large images tile by tile; a number is the side of a tile.
        class_names: of a detector given as an object.
        allow_custom_code: also build classes from outside detlit and torch that the checkpoint names.

    Attributes:
        class_names: names of all classes.
        preprocessing: how images become network input.

    Raises:
        CheckpointError: the file cannot be read or rebuilt.
        ConfigurationError: the device does not exist or cannot be used, or arguments that do not fit the file.
        MissingExtraError: the runtime of an exported file is not installed.
    """

    def __init__(
        self,
        model: str | Path | Detector,
        *,
        score_threshold: float | Mapping[str, float] | None = None,
        nms_threshold: float | None = None,
        classes: Sequence[str] | None = None,
        device: str | None = None,
        precision: Precision = "float32",
        image_size: tuple[int, int] | None = None,
        rectangular: bool = False,
        tiles: Tiles | int | None = None,
        class_names: Sequence[str] | None = None,
        allow_custom_code: bool = False,
    ) -> None:
        self.rectangular = rectangular
        self.tiles = Tiles(size=tiles) if isinstance(tiles, int) else tiles
        self.engine: Engine
        if isinstance(model, (str, Path)) and Path(model).suffix.lower() in EXPORTED_SUFFIXES:
            self._open(model, score_threshold, nms_threshold, classes, device, precision)
        else:
            stored: dict[str, Any] | None = None
            if isinstance(model, (str, Path)):
                stored = read_checkpoint(model)
                detector = detector_from_checkpoint(stored, allow_custom_code=allow_custom_code)
                class_names = stored["detlit"]["class_names"]
            else:
                detector = copy.deepcopy(model)
            self.preprocessing = detector.preprocessing
            self.class_names = tuple(class_names or placeholder_names(detector.num_classes))
            if len(self.class_names) != detector.num_classes:
                raise ConfigurationError(
                    f"{len(self.class_names)} names for a detector of {detector.num_classes} classes: give one each."
                )
            entry = {} if stored is None else stored["detlit"]
            default = entry.get("score_threshold", SCORE_THRESHOLD)
            thresholds = ClassThresholds(self.class_names, score_threshold, default, classes)
            callback = stored_callback(
                entry,
                allow_custom_code=allow_custom_code,
                score_threshold=thresholds.least,
                nms_threshold=nms_threshold,
            )
            self.engine = TorchEngine(detector, callback, thresholds, usable_device(device), precision)
        self._resize(image_size)

    def _open(
        self,
        path: str | Path,
        score_threshold: float | Mapping[str, float] | None,
        nms_threshold: float | None,
        classes: Sequence[str] | None,
        device: str | None,
        precision: Precision,
    ) -> None:
        """Take an exported file."""
        from detlit.export.session import open_exported

        if device not in (None, "cpu") or precision != "float32":
            raise ConfigurationError(
                f"device={device!r} and precision={precision!r} are for checkpoints, {path} runs on the CPU as it was "
                "exported: leave them out."
            )
        session = open_exported(path)
        self.preprocessing = Preprocessing.from_dict(session.metadata["preprocessing"])
        self.class_names = tuple(session.metadata["class_names"])
        default = session.metadata.get("score_threshold", SCORE_THRESHOLD)
        thresholds = ClassThresholds(self.class_names, score_threshold, default, classes)
        self.engine = ExportedEngine(session, thresholds, nms_threshold)

    def _resize(self, image_size: tuple[int, int] | None) -> None:
        if (image_size is not None or self.rectangular) and not self.engine.any_size:
            raise ConfigurationError(
                f"the file takes images of {self.preprocessing.size[0]}x{self.preprocessing.size[1]} pixels alone: "
                "export it with --dynamic size, or leave image_size and rectangular out."
            )
        if image_size is not None:
            self.preprocessing = resized(self.preprocessing, image_size)

    def __call__(
        self,
        source: Source,
        *,
        batch_size: int = 8,
        recursive: bool = False,
        channel_order: ChannelOrder = "RGB",
        max_download: int = 50_000_000,
        on_broken: OnBroken | None = None,
    ) -> Iterator[Result]:
        """Return an iterator over one result per image, in order; a thread reads ahead while the network computes.

        Args:
            source: path of an image or video, folder, pattern, URL, PIL image, array ``(H, W)``, ``(H, W, 3)`` or
                ``(H, W, 4)`` or a batch of them, tensor ``(C, H, W)`` or a batch of them, ``bytes`` of an image file,
                number of a camera, or an iterable of these, which may be endless. Values are 8 or 16 bits, or floating
                point in [0, 1].
            batch_size: images, or tiles, per forward pass; those of cameras are best seen one by one.
            recursive: look into the subfolders of folders.
            channel_order: of arrays with colours; files, PIL images and tensors are RGB by themselves.
            max_download: largest image in bytes that a URL may give.
            on_broken: is told what cannot be read, which then is skipped, e.g. ``print``; ``None`` raises it.

        Raises:
            ConfigurationError: ``batch_size`` is not positive or, from the iterator, something is no image.
            DatasetError: from the iterator: a path that leads nowhere.
            ImageReadError: from the iterator: an image that cannot be read, without ``on_broken``.
        """
        if batch_size < 1:
            raise ConfigurationError(f"batch_size={batch_size} leaves no image in a batch: give 1 or more.")
        frames = read_frames(
            source,
            recursive=recursive,
            channel_order=channel_order,
            max_download=max_download,
            on_broken=on_broken,
        )
        return self._results(frames, batch_size)

    def warm_up(self, batch_size: int = 8) -> "Predictor":
        """Run once on nothing, so that the first image is as fast as the others; return the predictor."""
        height, width = self.preprocessing.size
        self.engine.detect(torch.zeros(batch_size if self.engine.any_batch else 1, 3, height, width, dtype=torch.uint8))
        return self

    def _results(self, frames: Iterator[Frame], batch_size: int) -> Iterator[Result]:
        """Yield the results of :meth:`__call__`."""
        chunks = read_ahead(self._chunks(frames, batch_size))
        try:
            for chunk in chunks:
                yield from self._detect(chunk)
        finally:
            chunks.close()  # type: ignore[attr-defined]

    def _chunks(self, frames: Iterator[Frame], batch_size: int) -> Iterator[_Chunk]:
        """Yield what the reading thread prepares."""
        at_once = batch_size if self.engine.any_batch else 1
        while some := list(islice(frames, batch_size if self.tiles is None else 1)):
            windows = [self._windows(frame) for frame in some]
            parts = (
                frame.image[top:bottom, left:right]
                for frame, own in zip(some, windows, strict=True)
                for left, top, right, bottom in own
            )
            batches = [
                network_input(part, self.preprocessing, rectangular=self.rectangular)
                for part in _batched(parts, at_once)
            ]
            yield _Chunk(some, windows, batches)

    def _windows(self, frame: Frame) -> list[Window]:
        height, width = frame.image.shape[:2]
        return [(0, 0, width, height)] if self.tiles is None else self.tiles.windows(height, width)

    def _detect(self, chunk: _Chunk) -> Iterator[Result]:
        """Yield the results of images that are ready."""
        found: list[Detection] = []
        geometry = torch.cat([own for _, own in chunk.batches])
        for images, _ in chunk.batches:
            found += self.engine.detect(images)
        sizes = [(bottom - top, right - left) for own in chunk.windows for left, top, right, bottom in own]
        mapped = iter(to_original_pixels(found, geometry, sizes))
        for frame, windows in zip(chunk.frames, chunk.windows, strict=True):
            parts = list(islice(mapped, len(windows)))
            detection = parts[0]
            if self.tiles is not None and len(parts) > 1:
                detection = merge_tiles(parts, windows, (frame.image.shape[0], frame.image.shape[1]), self.tiles)
            yield Result(
                boxes=detection["boxes"].numpy(),
                scores=detection["scores"].numpy(),
                labels=detection["labels"].numpy(),
                class_names=self.class_names,
                image=frame.image,
                path=frame.path,
                frame=frame.position,
                fps=frame.fps,
            )


def _batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
