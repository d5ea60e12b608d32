"""From data sets to the tables that are checked."""

from collections.abc import Mapping
from pathlib import Path

from detlit.data.check.coco import collect_coco
from detlit.data.check.foreign import collect_dataset, join
from detlit.data.check.records import Problem, Split
from detlit.data.check.selection import select
from detlit.data.check.voc import collect_voc
from detlit.data.check.yolo import collect_yolo
from detlit.data.datasets.base import DetectionDataset
from detlit.data.datasets.coco import CocoDataset
from detlit.data.datasets.concat import ConcatDataset
from detlit.data.datasets.files import relative_to
from detlit.data.datasets.voc import VocDataset
from detlit.data.datasets.yolo import YoloDataset
from detlit.errors import DatasetError, MissingDataError

__all__ = ["collect"]


def collect(datasets: Mapping[str, DetectionDataset]) -> tuple[list[Split], list[Problem]]:
    """Return the splits of data sets as far as they can be read, and those that cannot be read at all.

    Args:
        datasets: by the name of the split.

    Raises:
        DatasetError: none of them can be read.
    """
    splits, problems = [], []
    for name, dataset in datasets.items():
        try:
            splits.append(_collect(name, dataset))
        except DatasetError as error:
            absent = name == "test" and isinstance(error, MissingDataError)
            code = "no-test-split" if absent else "unreadable-annotations"
            problems.append(Problem(code, name, str(error).removesuffix(".")))
    if not splits:
        raise DatasetError(problems[0].text + "." if problems else "there are no data to check.")
    return splits, problems


def _collect(name: str, dataset: DetectionDataset) -> Split:
    if isinstance(dataset, CocoDataset):
        return select(collect_coco(name, dataset.annotation_path, _folder_of(dataset)), dataset)
    if isinstance(dataset, YoloDataset):
        images, labels = dataset.files()
        names, root = dataset.read_class_names(), str(dataset.root or "")
        return select(collect_yolo(name, dataset.source, names, root, images, labels, dataset.confidence), dataset)
    if isinstance(dataset, VocDataset):
        images, files = dataset.files()
        inner = relative_to(dataset.find_image_folder(), images)
        names_given = dataset.known_class_names if dataset.classes is None else None  # else they are the new names
        split = collect_voc(
            name, dataset.source, names_given, inner, images, files, dataset.difficult, dataset.one_based
        )
        return select(split, dataset)
    if isinstance(dataset, ConcatDataset):
        return join(name, [_collect(name, part) for part in dataset.datasets])
    return collect_dataset(name, dataset)


def _folder_of(dataset: CocoDataset) -> Path:
    """Return the folder of the images; where there is none, the one that was asked for: all images are missing then."""
    try:
        return dataset.find_image_folder()
    except DatasetError:
        return Path(dataset.root or "", dataset.images)
