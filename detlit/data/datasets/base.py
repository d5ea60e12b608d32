"""The data set interface."""

import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from detlit.data.datasets.truth import REVERSED_HINT, GroundTruth, originals_of, refuse_normalised, reversed_boxes
from detlit.data.decoding import Decoding
from detlit.data.sample import Sample, clip_boxes, to_tensors
from detlit.data.sampler import SampleIndex
from detlit.errors import DatasetError
from detlit.spec import Recorded
from detlit.structures import Target

__all__ = ["DetectionDataset"]


class DetectionDataset(Recorded, Dataset[tuple[Tensor, Target]], ABC):
    """Images with boxes.

    A subclass says how many there are, of which classes, and how to load one::

        class Cells(DetectionDataset):
            class_names = ("red", "white")

            def __len__(self) -> int:
                return len(FILES)

            def load_image(self, index: int) -> NDArray[np.uint8]:
                return read_image(FILES[index])

            def load_target(self, index: int) -> GroundTruth:
                return {"boxes": BOXES[index], "labels": LABELS[index]}

    Boxes are cut off at the image's edges; those without area there are not trained on, but evaluation still counts
    them. A warning tells if the corners of some are in the wrong order, as of ``xywh`` boxes that are taken for xyxy.

    Attributes:
        class_names: names of the labels, in their order.
        transform: changes a sample before it becomes tensors; :class:`~detlit.data.DetectionDataModule` sets it on its
            own copy of the data set.
        augmentation_seed: the random state of a transform follows from it, the epoch and the index, whatever the
            number of workers.
        decoding: how :meth:`load_sample` gets images: from a cache, at a reduced scale; the data module sets it.
    """

    class_names: Sequence[str]
    transform: Callable[[Sample, np.random.Generator], Sample] | None = None
    augmentation_seed: int = 0
    decoding: Decoding | None = None
    _told_of_reversed: bool = False
    _worker_generator: tuple[tuple[int, int], np.random.Generator] | None = None

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images."""

    @abstractmethod
    def load_image(self, index: int) -> NDArray[np.uint8]:
        """Return image number ``index`` as ``(H, W, 3)`` uint8 RGB."""

    @abstractmethod
    def load_target(self, index: int) -> GroundTruth:
        """Return what is annotated in image number ``index``."""

    def image_path(self, index: int) -> Path | None:
        """Return the file of image number ``index``, where it is one: the ``path`` of its target, if that exists."""
        path = self.load_target(index).get("path")
        return Path(path) if path is not None and Path(path).is_file() else None

    def fingerprint(self) -> str | None:
        """Return a text that changes when images do that are in no files of their own, ``None`` if nothing tells.

        The cache on the disk needs it for such images, to notice that they changed; files tell by their time of change.
        """
        return None

    def image_size(self, index: int) -> tuple[int, int]:
        """Return (height, width) of image number ``index``; override it where that needs no decoding."""
        height, width = self.load_image(index).shape[:2]
        return height, width

    def object_counts(self) -> NDArray[np.int64] | None:
        """Return ``(num_classes,)`` objects of each class, ``None`` if only loading all targets would tell."""
        return None

    def setup(self) -> None:
        """Read and check what all images share; called once, before workers start."""

    def use_class_names(self, names: Sequence[str]) -> None:
        """Adopt the class list of the run; a data set with fixed classes can only check that its labels mean the same.

        Raises:
            DatasetError: a label would stand for another class.
        """
        own = tuple(self.class_names)
        if own != tuple(names)[: len(own)]:
            raise DatasetError(
                f"{type(self).__name__} has the classes {list(own)} but the run has {list(names)}: "
                "labels mean the same only if the data sets list their classes in one order."
            )

    def __getitem__(self, index: int | SampleIndex) -> tuple[Tensor, Target]:
        """Return image ``(3, H, W)`` uint8 and its target, boxes in absolute xyxy pixels of that image."""
        if isinstance(index, SampleIndex):
            sample = self.load_sample(index.dataset_index)
            sample.request = index
        else:
            sample = self.load_sample(index)
        if self.transform is not None:
            sample = self.transform(sample, self._generator(index))
        return to_tensors(sample)

    def load_sample(self, index: int) -> Sample:
        """Return image number ``index`` and its objects, untransformed, but perhaps decoded at a reduced scale.

        Raises:
            AnnotationError: boxes or labels that cannot be.
            DatasetError: ``load_image`` returned something other than ``(H, W, 3)`` uint8.
        """
        truth = self.load_target(index)
        decoded = (self.decoding or Decoding()).load(self, index)
        image = decoded.image
        path = truth.get("path", f"{type(self).__name__}[{index}]")
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise DatasetError(f"image {path} is {image.dtype} {image.shape}: load_image must return uint8 (H, W, 3).")
        originals = originals_of(truth, len(self.class_names), path)
        if min(decoded.size) >= 32:
            refuse_normalised(originals.boxes, path)
        self._tell_of_reversed(originals.boxes, path)
        boxes = clip_boxes(originals.boxes, *decoded.size)
        kept = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        return Sample(
            image=image,
            boxes=boxes[kept] / decoded.factor,
            labels=originals.labels[kept],
            iscrowd=originals.iscrowd[kept],
            image_id=truth.get("image_id", index),
            dataset_index=index,
            path=path,
            orig_size=decoded.size,
            geometry=(1 / decoded.factor, 1 / decoded.factor, 0.0, 0.0),
            originals=originals,
        )

    def _tell_of_reversed(self, boxes: NDArray[np.float64], path: str) -> None:
        """Warn, once per process, of boxes that are left out because their corners are in the wrong order."""
        wrong = reversed_boxes(boxes)
        if wrong.any() and not self._told_of_reversed:
            self._told_of_reversed = True
            warnings.warn(
                f"{path} has the box {boxes[wrong][0].tolist()}, which ends before it begins and is left out of "
                f"training, as all such boxes are: {REVERSED_HINT}.",
                stacklevel=3,
            )

    def _generator(self, index: int | SampleIndex) -> np.random.Generator:
        """Return the random state of a sample; a foreign sampler's plain index gets that of its worker and epoch.

        The DataLoader seeds torch anew in each worker, and in each epoch unless workers persist; then the generator
        goes on. A generator inherited from the parent process is never used: it would repeat in every worker.
        """
        if isinstance(index, SampleIndex):
            return np.random.default_rng((self.augmentation_seed, index.epoch, index.dataset_index, index.repeat))
        owner = (os.getpid(), torch.initial_seed())
        if self._worker_generator is None or self._worker_generator[0] != owner:
            self._worker_generator = owner, np.random.default_rng((self.augmentation_seed, torch.initial_seed()))
        return self._worker_generator[1]
