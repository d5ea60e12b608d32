"""More than a few numbers after ``validate`` and ``test``: a report, the predictions, a table of the classes."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from numpy.typing import NDArray
from rich.console import Console

from detlit.errors import ConfigurationError
from detlit.metrics.collecting import CollectingMetric, Tables
from detlit.metrics.quality import QualityReport, quality_report
from detlit.metrics.results_file import write_results
from detlit.reports.evaluation import write_evaluation
from detlit.reports.evaluation_tables import class_table

__all__ = ["EvaluationReport"]

Stage = Literal["val", "test"]


class EvaluationReport(Callback):
    """Write what ``trainer.validate`` and ``trainer.test`` found; ``fit`` is left alone.

    The module must have ``metrics_of(stage)``, as :class:`~detlit.module.DetectionModule` does, with metrics that
    collect detections, and ``class_names``. With several ranks the first one writes, for the images of all.
    Further loaders write to ``FOLDER/val_1``, ``results_1.json`` and so on.

    Args:
        report: folder for ``report.html``, one file that needs no network, and ``metrics.json``.
        save_predictions: json file for all detections in COCO's results format. Image and category ids are those of the
            annotation file where the data set says them; otherwise categories count from 1, and so do images.
        per_class: print a table of the classes.
        num_pictures: wrong detections, and missed objects, that the report shows. The data set must have
            ``load_image(index)``, otherwise there are none.
    """

    def __init__(
        self,
        report: str | Path | None = None,
        save_predictions: str | Path | None = None,
        per_class: bool = False,
        num_pictures: int = 12,
    ) -> None:
        if num_pictures < 0:
            raise ConfigurationError(f"num_pictures={num_pictures} is negative: set it to 0 or more.")
        self.report = None if report is None else Path(report)
        self.save_predictions = None if save_predictions is None else Path(save_predictions)
        self.per_class = per_class
        self.num_pictures = num_pictures
        self._printed: list[Any] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make the folders now: a place that cannot be written to is better known before an hour of detection."""
        if stage in ("validate", "test") and trainer.is_global_zero:
            for folder in (self.report, self.save_predictions and self.save_predictions.parent):
                if folder is not None:
                    folder.mkdir(parents=True, exist_ok=True)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write; the module's own hook, which comes later, resets the metrics."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._write_all(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write, likewise."""
        self._write_all(trainer, pl_module, "test")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print, below the metrics."""
        self._print()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print, below the metrics."""
        self._print()

    def _print(self) -> None:
        console = Console(highlight=False)
        for item in self._printed:
            console.print(item, soft_wrap=isinstance(item, str), markup=False)
        self._printed = []

    def _write_all(self, trainer: Trainer, pl_module: LightningModule, stage: Stage) -> None:
        """Write what every loader's metric holds; gathering is for all ranks."""
        metrics: Mapping[str, Any] = pl_module.metrics_of(stage)  # type: ignore[operator]
        for index, ((key, metric), dataset) in enumerate(zip(metrics.items(), _datasets(trainer, stage), strict=True)):
            if not isinstance(metric, CollectingMetric):
                raise ConfigurationError(
                    f"a report needs a metric that collects detections, and {type(metric).__name__} does not: "
                    "set model.metric to CocoMeanAveragePrecision."
                )
            tables = metric.tables()
            if trainer.is_global_zero:
                self._write(trainer, pl_module, tables, dataset, key, index)

    def _write(
        self, trainer: Trainer, pl_module: LightningModule, tables: Tables, dataset: Any, key: str, index: int
    ) -> None:
        names: tuple[str, ...] = tuple(pl_module.class_names)  # type: ignore[arg-type]
        if self.save_predictions is not None:
            path = self.save_predictions
            path = path if index == 0 else path.with_name(f"{path.stem}_{index}{path.suffix}")
            write_results(path, tables.detections, _image_ids(tables), _category_ids(dataset, names))
            self._printed.append(f"predictions: {path}")
        if not (self.report or self.per_class):
            return
        quality = quality_report(
            tables.detections,
            tables.objects,
            num_images=len(tables.dataset_index),
            class_names=names,
            dataset_index=tables.dataset_index,
        )
        if self.per_class:
            self._printed.append(class_table(quality))
        if self.report is not None:
            folder = self.report if index == 0 else self.report / key
            page = self._write_report(quality, folder, tables, dataset, key, str(trainer.ckpt_path or ""))
            self._printed.append(f"report: {page}")

    def _write_report(
        self, quality: QualityReport, folder: Path, tables: Tables, dataset: Any, key: str, checkpoint: str
    ) -> Path:
        def load_image(image: int) -> NDArray[np.uint8]:
            pixels: NDArray[np.uint8] = dataset.load_image(int(tables.dataset_index[image]))
            return pixels

        def image_name(image: int) -> str:
            path = dataset.load_target(int(tables.dataset_index[image])).get("path")
            return f"image {tables.image_id[image]}" if path is None else Path(path).name

        readable = hasattr(dataset, "load_image") and (tables.dataset_index >= 0).all()
        source = getattr(dataset, "source", type(dataset).__name__)
        return write_evaluation(
            quality,
            folder,
            f"Evaluation of {key}",
            ", ".join(part for part in (checkpoint, f"scored on {source}") if part),
            load_image if readable and self.num_pictures else None,
            image_name,
            self.num_pictures,
        )


def _datasets(trainer: Trainer, stage: Stage) -> list[Any]:
    """Return the data set of each loader."""
    loaders = trainer.val_dataloaders if stage == "val" else trainer.test_dataloaders
    return [
        getattr(loader, "dataset", None) for loader in (loaders if isinstance(loaders, (list, tuple)) else [loaders])
    ]


def _image_ids(tables: Tables) -> NDArray[np.int64]:
    """Return ``(I,)`` the ids of the images, or numbers from 1 where there are none or they repeat."""
    ids = tables.image_id
    if (ids >= 0).all() and len(np.unique(ids)) == len(ids):
        return ids
    warnings.warn("the data set's image ids are missing or repeat: predictions number the images from 1.", stacklevel=2)
    index = tables.dataset_index
    return 1 + (index if (index >= 0).all() else np.arange(len(ids)))


def _category_ids(dataset: Any, names: tuple[str, ...]) -> list[int]:
    """Return the id of each class in the annotation file; those it does not know follow, from 1 if it knows none."""
    known: Mapping[str, int] = getattr(dataset, "category_ids", {})
    unused = 1 + max(known.values(), default=0)
    ids = []
    for name in names:
        ids.append(known.get(name, unused))
        unused += name not in known
    return ids
