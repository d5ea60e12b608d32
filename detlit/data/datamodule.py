"""The LightningDataModule: data sets to loaders of batches."""

import copy
import os
import warnings

import cv2
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from detlit.data.collate import collate
from detlit.data.datasets import DetectionDataset, ShapesDataset
from detlit.data.sampler import DetectionSampler
from detlit.data.transforms import Augment, Letterbox, Transform, default_augmentations
from detlit.errors import ConfigurationError, DatasetError
from detlit.spec import Recorded
from detlit.structures import Batch, Preprocessing

__all__ = ["DetectionDataModule"]


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
        image_size: side of the square network input, or (height, width), in pixels, multiples of 32.
        preprocessing: how images become network input, instead of ``image_size`` and the defaults.
        augmentations: changes at random to training images, :func:`~detlit.data.transforms.default_augmentations`
            unless given; ``[]`` for none.
        class_names: names of the labels in their order; ``None`` takes those of the training split, or of the first
            split there is.
        batch_size: training images per step and process.
        val_batch_size: images per step and process in validation and test, ``batch_size`` unless given.
        num_workers: processes that load each split; ``None`` takes one per core, at most 8, and none for a data set of
            less than 64 images.
        seed: of the order of the training images and their augmentation.

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
        image_size: int | tuple[int, int] = 640,
        preprocessing: Preprocessing | None = None,
        augmentations: list[Transform] | None = None,
        class_names: list[str] | None = None,
        batch_size: int = 16,
        val_batch_size: int | None = None,
        num_workers: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.root = root
        self.batch_size = _at_least("batch_size", batch_size, 1)
        self.val_batch_size = batch_size if val_batch_size is None else _at_least("val_batch_size", val_batch_size, 1)
        self.num_workers = None if num_workers is None else _at_least("num_workers", num_workers, 0)
        self.seed = _at_least("seed", seed, 0)
        size = (image_size, image_size) if isinstance(image_size, int) else image_size
        self.preprocessing = Preprocessing(size=size) if preprocessing is None else preprocessing
        self.augmentations = default_augmentations() if augmentations is None else list(augmentations)
        given = {"train": train, "val": val, "test": test}
        self._given = {split: dataset for split, dataset in given.items() if dataset is not None} or self._shapes()
        self._datasets: dict[str, DetectionDataset] = {}
        self._class_names_given = class_names is not None
        self.class_names = self._first_class_names() if class_names is None else tuple(class_names)
        if len(set(self.class_names)) < max(1, len(self.class_names)):
            raise ConfigurationError(
                f"class_names={list(self.class_names)} must be names, each once: correct the list."
            )
        self.num_classes = len(self.class_names)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits there are: some of ``"train"``, ``"val"`` and ``"test"``."""
        return tuple(self._given)

    def _shapes(self) -> dict[str, DetectionDataset]:
        if self.root is not None:
            raise ConfigurationError(
                f"root={self.root} is given, but no data set reads it: choose a data config, such as custom_coco, "
                "or set data.train and data.val."
            )
        return {"train": ShapesDataset(1000, seed=0), "val": ShapesDataset(200, seed=1)}

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
        dataset.transform = Augment(self.preprocessing, self.augmentations) if train else Letterbox(self.preprocessing)
        dataset.augmentation_seed = self.seed
        with warnings.catch_warnings():
            if self.trainer is not None and self.trainer.global_rank > 0:
                warnings.simplefilter("ignore")  # every rank reads the same files
            dataset.setup()
        if len(dataset) == 0:
            raise DatasetError(f"the {split} split has no images: check data.{split}.")
        return dataset

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
    def train_dataloader(self) -> DataLoader[Batch]:
        """Return shuffled, augmented batches of one size."""
        dataset = self.dataset("train")
        if dataset is None:
            raise ConfigurationError("there are no training data: set data.train.")
        sampler = DetectionSampler(dataset, seed=self.seed)
        if len(sampler) < self.batch_size:
            raise ConfigurationError(
                f"batch_size={self.batch_size} is more than the {len(sampler)} training images of each process: "
                f"set data.batch_size to {len(sampler)} or less."
            )
        return self._loader(dataset, batch_size=self.batch_size, sampler=sampler, drop_last=True)

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
        return [] if dataset is None else self._loader(dataset, batch_size=self.val_batch_size)

    def _loader(
        self,
        dataset: DetectionDataset,
        batch_size: int,
        sampler: DetectionSampler | None = None,
        drop_last: bool = False,
    ) -> DataLoader[Batch]:
        workers = self._workers_for(len(dataset)) if self.num_workers is None else self.num_workers
        return DataLoader(
            dataset,  # type: ignore[arg-type]
            batch_size=batch_size,
            sampler=sampler,
            drop_last=drop_last,
            num_workers=workers,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=use_one_thread,
            persistent_workers=workers > 0,
        )

    def _workers_for(self, num_images: int) -> int:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        processes = 1 if self.trainer is None else max(1, self.trainer.num_devices)
        return min(8, cores // processes) if num_images >= _FEW_IMAGES else 0


_FEW_IMAGES = 64


def use_one_thread(worker_id: int) -> None:
    """Keep OpenCV in a loader's worker to one thread: workers already use all cores."""
    cv2.setNumThreads(0)
    cv2.ocl.setUseOpenCL(False)


def _at_least(name: str, value: int, least: int) -> int:
    if value < least:
        raise ConfigurationError(f"{name}={value} is too small: set data.{name} to {least} or more.")
    return value
