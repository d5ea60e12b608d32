"""Data sets of images with boxes."""

from detlit.data.datasets.base import DetectionDataset, GroundTruth
from detlit.data.datasets.coco import CocoDataset
from detlit.data.datasets.shapes import ShapesDataset

__all__ = ["CocoDataset", "DetectionDataset", "GroundTruth", "ShapesDataset"]
