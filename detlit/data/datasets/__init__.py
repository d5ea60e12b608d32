"""Data sets of images with boxes."""

from detlit.data.datasets.annotated import AnnotatedDataset
from detlit.data.datasets.base import DetectionDataset, GroundTruth
from detlit.data.datasets.coco import CocoDataset
from detlit.data.datasets.concat import ConcatDataset
from detlit.data.datasets.guess import guess_datasets
from detlit.data.datasets.huggingface import HuggingFaceDataset
from detlit.data.datasets.lists import ListDataset
from detlit.data.datasets.shapes import ShapesDataset
from detlit.data.datasets.voc import VocDataset
from detlit.data.datasets.yolo import YoloDataset

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
