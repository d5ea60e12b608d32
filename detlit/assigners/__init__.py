"""Assigners decide which anchor point learns which object."""

from detlit.assigners.atss import ATSSAssigner
from detlit.assigners.base import Assigner, Assignment, ImageAssigner, ImageObjects, ImagePredictions
from detlit.assigners.task_aligned import TaskAlignedAssigner

__all__ = [
    "ATSSAssigner",
    "Assigner",
    "Assignment",
    "ImageAssigner",
    "ImageObjects",
    "ImagePredictions",
    "TaskAlignedAssigner",
]
