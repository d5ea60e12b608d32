"""The LightningDataModule: data sets to loaders of batches."""

import copy
import math
import os
import warnings
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, Trainer
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from detlit.data.collation import collate
from detlit.data.datasets import DetectionDataset, ShapesDataset
from detlit.data.decoding import Decoded, Decoding
from detlit.data.image_cache import DiskCache, RamCache
from detlit.data.loader import ResumableLoader
from detlit.data.sampler import DetectionSampler, repeat_factors
from detlit.data.transforms import Augment, BatchTransform, Letterbox, Mosaic, Transform, default_augmentations
from detlit.data.transforms.letterbox import resized
from detlit.data.workers import start_worker
from detlit.errors import ConfigurationError, DatasetError, abridged
from detlit.spec import Recorded
from detlit.structures import Batch, Preprocessing

__all__ = ["DetectionDataModule"]

_FEW_IMAGES = 64
"""Below so many, starting workers takes longer than they save."""

_FEW_CLASSES = 10
"""Up to so many are listed in full in a message."""


class DetectionDataModule(LightningDataModule, Recorded):
    """Load data sets for training, validation and test; without any, generated shapes.

    ``class_names``, ``num_classes`` and ``preprocessing`` are known at once, since the model is built from them; images
    and annotations are read in :meth:`setup`. The data sets given are not changed: each split works on a copy, with its
    own transform, with the classes of the run, and with ``root`` where it has none.

    Args:
        train: the training split.
        val: the validation split.
        test: the test split.
        root: the folder of the data, for data sets that do not name one.
        image_size: side of the square network input, or (height, width), in pixels, multiples of 32; ``None`` takes
            that of ``preprocessing``, or 640.
        preprocessing: how images become network input, in place of the defaults; its content follows ``image_size``.
        augmentations: changes at random to training images, :func:`~detlit.data.transforms.default_augmentations`
            unless given; ``[]`` for none.
        multi_scale: (least, largest) factor of the network input in training: each batch is of one size, drawn from
            those with sides that are multiples of 32; ``None`` for one size.
        class_names: names of the labels in their order; ``None`` takes those of the training split, or of the first
            split there is.
        batch_size: training images per step and process.
        val_batch_size: images per step and process in validation and test, ``batch_size`` unless given.
        num_workers: processes that load each split; ``None`` takes one per core, at most 8, and none for a data set of
            less than 64 images.
        seed: of the order of the training images and their augmentation.
        cache: keep decoded images of the training and validation splits: ``"ram"`` decodes all of them in
            :meth:`setup`, in every rank, whose workers share them; ``"disk"`` as they come, for all ranks, and later
            runs find them there; ``None`` decodes them each time.
        cache_dir: the folder of the disk cache; ``detlit/images`` in the user's cache folder unless given.
        reduced_decoding: decode training JPEGs that are at least twice as large as the network input at a half, a
            quarter or an eighth of their size, two to three times as fast; pixels differ a little, boxes do not.
        repeat_threshold: part of the images below which a class counts as rare, and images with it are repeated, see
            :func:`~detlit.data.sampler.repeat_factors`; ``None`` repeats none.

    Attributes:
        mosaic_off_epoch: from this epoch on training images are not combined with others;
            :class:`~detlit.callbacks.CloseMosaic` sets it. ``None`` for never.

    Raises:
        ConfigurationError: arguments that contradict each other; later, a batch larger than the training split.
        DatasetError: a split that is missing or has other classes.
    """

    def __init__(
        self,
        train: DetectionDataset | None = None,
        val: DetectionDataset | None = None,
        test: DetectionDataset | None = None,
        root: str | None = None,
        image_size: int | tuple[int, int] | None = None,
        preprocessing: Preprocessing | None = None,
        augmentations: list[Transform] | None = None,
        multi_scale: tuple[float, float] | None = None,
        class_names: list[str] | None = None,
        batch_size: int = 16,
        val_batch_size: int | None = None,
        num_workers: int | None = None,
        seed: int = 0,
        cache: Literal["ram", "disk"] | None = None,
        cache_dir: str | None = None,
        reduced_decoding: bool = False,
        repeat_threshold: float | None = None,
    ) -> None:
        super().__init__()
        self.root = root
        self.batch_size = _at_least("batch_size", batch_size, 1)
        self.val_batch_size = batch_size if val_batch_size is None else _at_least("val_batch_size", val_batch_size, 1)
        self.num_workers = None if num_workers is None else _at_least("num_workers", num_workers, 0)
        self.seed = _at_least("seed", seed, 0)
        self.preprocessing = preprocessing or Preprocessing()
        if image_size is not None:
            size = (image_size, image_size) if isinstance(image_size, int) else image_size
            self.preprocessing = resized(self.preprocessing, size)
        self.augmentations = default_augmentations() if augmentations is None else list(augmentations)
        self._sizes = [] if multi_scale is None else _sizes_around(self.preprocessing.size, multi_scale)
        if cache not in ("ram", "disk", None):
            raise ConfigurationError(f"cache={cache!r} is unknown: choose 'ram', 'disk' or null.")
        self.cache, self.cache_dir = cache, cache_dir or _user_cache_dir()
        self.reduced_decoding = reduced_decoding
        self.repeat_threshold = repeat_threshold
        self.mosaic_off_epoch: int | None = None
        given = {"train": train, "val": val, "test": test}
        self._given = {split: dataset for split, dataset in given.items() if dataset is not None} or _shapes(root)
        if root is not None and not any(hasattr(dataset, "root") for dataset in self._given.values()):
            names = abridged(dict.fromkeys(type(dataset).__name__ for dataset in self._given.values()))
            warnings.warn(f"root={root} is given, but {names} does not read it.", stacklevel=2)
        self._datasets: dict[str, DetectionDataset] = {}
        self._class_names_given = class_names is not None
        self.class_names = self._first_class_names() if class_names is None else tuple(class_names)
        if isinstance(class_names, str) or len(set(self.class_names)) < max(1, len(self.class_names)):
            raise ConfigurationError(
                f"class_names={list(self.class_names)} must be names, each once: correct the list."
            )
        self.num_classes = len(self.class_names)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits there are: some of ``"train"``, ``"val"`` and ``"test"``."""
        return tuple(self._given)

    def _first_class_names(self) -> tuple[str, ...]:
        """Return the classes of the training split, or of the first split there is."""
        dataset = self._placed(next(iter(self._given.values())))
        return tuple(dataset.class_names)

    def _placed(self, dataset: DetectionDataset) -> DetectionDataset:
        """Return a copy of a data set that knows its root."""
        dataset = copy.copy(dataset)
        if getattr(dataset, "root", "") is None:
            dataset.root = self.root  # type: ignore[attr-defined]
        return dataset

    # --------------------------------------------------------------------------------------------- splits
    def setup(self, stage: str | None = None) -> None:
        """Read and check the splits that a stage of the Trainer needs, all of them for ``None``."""
        stages = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": (self._predict_split,)}
        for split in tuple(self._given) if stage is None else stages[stage]:
            self.dataset(split)

    @property
    def _predict_split(self) -> str:
        return "test" if "test" in self._given else "val"

    def given(self, split: str) -> DetectionDataset:
        """Return a copy of the data set of a split as it was given, with ``root``; nothing is read or checked."""
        return self._placed(self._given[split])

    def dataset(self, split: str) -> DetectionDataset | None:
        """Return the data set of ``"train"``, ``"val"`` or ``"test"``, ready for use, or ``None`` if there is none."""
        if split not in self._datasets and split in self._given:
            self._datasets[split] = self._prepare(split)
        return self._datasets.get(split)

    def _prepare(self, split: str) -> DetectionDataset:
        dataset = self._placed(self._given[split])
        self._check_classes(split, dataset)
        dataset.use_class_names(self.class_names)
        train = split == "train"
        dataset.transform = (
            Augment(self.preprocessing, self.augmentations, dataset) if train else Letterbox(self.preprocessing)
        )
        dataset.augmentation_seed = self.seed
        with warnings.catch_warnings():
            if self.trainer is not None and self.trainer.global_rank > 0:
                warnings.simplefilter("ignore")  # every rank reads the same files
            dataset.setup()
            if train:
                _tell_of_unused_classes(dataset)
        if len(dataset) == 0:
            raise DatasetError(f"the {split} split has no images: check data.{split}.")
        dataset.decoding = self._decoding(dataset, split)
        return dataset

    def _decoding(self, dataset: DetectionDataset, split: str) -> Decoding:
        """Return how the images of a split are decoded and kept."""
        reduced_for = None
        if self.reduced_decoding and split == "train":
            sizes = [self.preprocessing.size, *self._sizes]
            reduced_for = resized(self.preprocessing, max(sizes))
        in_batch = any(isinstance(item, Mosaic) and item.partners == "batch" for item in self.augmentations)
        decoding = Decoding(reduced_for, keep=self.batch_size if in_batch and split == "train" else 0)
        if split == "test" or self.cache is None:
            return decoding

        def decode(index: int) -> Decoded:
            return decoding.decode(dataset, index)

        variant = "" if reduced_for is None else f"reduced for {reduced_for}"
        if self.cache == "ram":
            return Decoding(reduced_for, RamCache(dataset, decode, max(1, self._cores())))
        return Decoding(reduced_for, DiskCache(dataset, decode, self.cache_dir, variant))

    def _check_classes(self, split: str, dataset: DetectionDataset) -> None:
        """Refuse a split with classes that the training split, which decides on them, does not have."""
        if self._class_names_given:
            return
        for name in dataset.class_names:
            if name not in self.class_names:
                raise DatasetError(
                    f"the {split} split has a class {name!r} that the {next(iter(self._given))} split lacks (it has "
                    f"{', '.join(self.class_names)}): correct the annotations, or list all classes in data.class_names."
                )

    # -------------------------------------------------------------------------------------------- loaders
    def train_dataloader(self) -> ResumableLoader:
        """Return shuffled, augmented batches; see :class:`~detlit.data.loader.ResumableLoader` for resuming."""
        dataset = self.dataset("train")
        if dataset is None:
            raise ConfigurationError("there are no training data: set data.train.")
        sampler = DetectionSampler(
            dataset,
            seed=self.seed,
            factors=self._repeat_factors(dataset),
            sizes=self._sizes,
            batch_size=self.batch_size,
        )
        sampler.mosaic_off_epoch = self.mosaic_off_epoch
        if len(sampler) < self.batch_size:
            raise ConfigurationError(
                f"batch_size={self.batch_size} is more than the {len(sampler)} training images of each process: "
                f"set data.batch_size to {len(sampler)} or less."
            )
        return ResumableLoader(sampler=sampler, drop_last=True, **self._loader_arguments(dataset, self.batch_size))

    def _repeat_factors(self, dataset: DetectionDataset) -> NDArray[np.float64] | None:
        if self.repeat_threshold is None:
            return None
        labels = [
            np.array(dataset.load_target(index)["labels"], dtype=np.int64).reshape(-1) for index in range(len(dataset))
        ]
        return repeat_factors(labels, self.repeat_threshold)

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """Return the validation split in order; an empty list, which the Trainer skips, where there is none."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """Return the test split in order, or an empty list."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """Return the test split in order, or the validation split where there is none."""
        return self._evaluation_loader(self._predict_split)

    def _evaluation_loader(self, split: str) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        dataset = self.dataset(split)
        if dataset is None:
            return []
        return DataLoader(**self._loader_arguments(dataset, self.val_batch_size))

    def _loader_arguments(self, dataset: DetectionDataset, batch_size: int) -> dict[str, Any]:
        workers = self._workers_for(len(dataset)) if self.num_workers is None else self.num_workers
        return {
            "dataset": dataset,
            "batch_size": batch_size,
            "num_workers": workers,
            "collate_fn": collate,
            "pin_memory": torch.cuda.is_available(),
            "worker_init_fn": start_worker,
            "persistent_workers": workers > 0,
            # Otherwise a loader that starts draws from the global generator, which it does once more in a resumed run.
            "generator": torch.Generator().manual_seed(self.seed),
        }

    def _workers_for(self, num_images: int) -> int:
        return min(8, self._cores()) if num_images >= _FEW_IMAGES else 0

    def _cores(self) -> int:
        """Return the cores for each process of the run, 0 where processes share them."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        processes = 1 if self.trainer is None else max(1, self.trainer.num_devices)
        return cores // processes

    # ---------------------------------------------------------------------------------------------- device
    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Apply the augmentations of whole batches, in training alone.

        Each image draws from a generator of its own that follows from seed, epoch, index and how often it was drawn in
        the epoch before, so that the same run gives the same batches however it is split over ranks, and wherever it is
        resumed. Images of an unknown index draw by their place in the epoch.
        """
        transforms = [transform for transform in self.augmentations if isinstance(transform, BatchTransform)]
        if not transforms or self.trainer is None or not self.trainer.training:
            return batch
        generators = [
            np.random.default_rng((self.seed, self.trainer.current_epoch, *_draw(batch, place, self.trainer)))
            for place in range(len(batch))
        ]
        for transform in transforms:
            batch.images = transform(batch.images, generators)
        return batch


def _tell_of_unused_classes(dataset: DetectionDataset) -> None:
    """Warn of classes that no training image has an object of."""
    counts = dataset.object_counts()
    if counts is None or counts.all() or not counts.any():
        return
    unused = [repr(name) for name, count in zip(dataset.class_names, counts, strict=True) if not count]
    used = [name for name, count in zip(dataset.class_names, counts, strict=True) if count]
    classes, them = ("classes", "them") if len(unused) > 1 else ("class", "it")
    others = ", ".join(used) if len(used) <= _FEW_CLASSES else "the others"
    warnings.warn(
        f"the training split has no object of {classes} {abridged(unused)}, so nothing is learned of {them}: list only "
        f"{others} in data.class_names, unless images are to come.",
        stacklevel=4,
    )


def _shapes(root: str | None) -> dict[str, DetectionDataset]:
    if root is not None:
        raise ConfigurationError(
            f"root={root} is given, but no data set reads it: choose a data config, such as custom_coco, "
            "or set data.train and data.val."
        )
    return {"train": ShapesDataset(1000, seed=0), "val": ShapesDataset(200, seed=1)}


def _draw(batch: Batch, place: int, trainer: Trainer) -> tuple[int, ...]:
    """Return what tells the draw of an image from all others of its epoch."""
    index = batch.dataset_indices[place]
    if index >= 0:
        return index, batch.repeats[place], 1
    return trainer.fit_loop.epoch_loop.batch_progress.current.ready, trainer.global_rank, place, 2


def _sizes_around(size: tuple[int, int], factors: tuple[float, float]) -> list[tuple[int, int]]:
    """Return the sizes between the least and the largest factor, their sides multiples of 32 near the same ratio."""
    height, width = size
    least, largest = factors
    heights = [side for side in range(32, math.floor(height * largest) + 1, 32) if side >= height * least]
    if least <= 0 or len(heights) < 2:
        raise ConfigurationError(
            f"multi_scale={tuple(factors)} leaves fewer than two sizes around {height}x{width}: give (least, largest) "
            "factors above 0 that are further apart, such as (0.75, 1.25)."
        )
    return [(side, max(32, round(side * width / height / 32) * 32)) for side in heights]


def _user_cache_dir() -> str:
    return os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "detlit", "images")  # noqa: PTH118


def _at_least(name: str, value: int, least: int) -> int:
    if value < least:
        raise ConfigurationError(f"{name}={value} is too small: set data.{name} to {least} or more.")
    return value
