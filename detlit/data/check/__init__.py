"""The dataset doctor: faults of annotations and images, found before they cost a training run."""

from detlit.data.check.doctor import Checkup, check_data
from detlit.data.check.finding import Finding
from detlit.data.check.records import Problem, Records, Split

__all__ = ["Checkup", "Finding", "Problem", "Records", "Split", "check_data"]
