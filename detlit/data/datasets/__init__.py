"""Data sets of images with boxes. They are imported when one is first used: annotation files are read without torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOME_OF = {
    "AnnotatedDataset": "annotated",
    "CocoDataset": "coco",
    "ConcatDataset": "concat",
    "DetectionDataset": "base",
    "GroundTruth": "truth",
    "HuggingFaceDataset": "huggingface",
    "ListDataset": "lists",
    "ShapesDataset": "shapes",
    "VocDataset": "voc",
    "YoloDataset": "yolo",
    "guess_datasets": "guess",
}

__all__ = [
    "AnnotatedDataset",
    "CocoDataset",
    "ConcatDataset",
    "DetectionDataset",
    "GroundTruth",
    "HuggingFaceDataset",
    "ListDataset",
    "ShapesDataset",
    "VocDataset",
    "YoloDataset",
    "guess_datasets",
]

if TYPE_CHECKING:
    from detlit.data.datasets.annotated import AnnotatedDataset
    from detlit.data.datasets.base import DetectionDataset
    from detlit.data.datasets.coco import CocoDataset
    from detlit.data.datasets.concat import ConcatDataset
    from detlit.data.datasets.guess import guess_datasets
    from detlit.data.datasets.huggingface import HuggingFaceDataset
    from detlit.data.datasets.lists import ListDataset
    from detlit.data.datasets.shapes import ShapesDataset
    from detlit.data.datasets.truth import GroundTruth
    from detlit.data.datasets.voc import VocDataset
    from detlit.data.datasets.yolo import YoloDataset


def __getattr__(name: str) -> Any:
    """Import all data sets when the first is asked for: the parser finds a class by its short name once it exists."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'detlit.data.datasets' has no attribute {name!r}")
    for public, home in _HOME_OF.items():
        globals()[public] = getattr(import_module(f"detlit.data.datasets.{home}"), public)
    return globals()[name]


def __dir__() -> list[str]:
    return __all__
