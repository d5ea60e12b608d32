"""Data sets of images with boxes."""

from detlit.data.datasets.annotated import AnnotatedDataset
from detlit.data.datasets.base import DetectionDataset, GroundTruth
from detlit.data.datasets.coco import CocoDataset
from detlit.data.datasets.guess import guess_datasets
from detlit.data.datasets.shapes import ShapesDataset
from detlit.data.datasets.voc import VocDataset
from detlit.data.datasets.yolo import YoloDataset

__all__ = [
    "AnnotatedDataset",
    "CocoDataset",
    "DetectionDataset",
    "GroundTruth",
    "ShapesDataset",
    "VocDataset",
    "YoloDataset",
    "guess_datasets",
]
