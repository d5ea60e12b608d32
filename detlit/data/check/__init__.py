"""The dataset doctor: faults of annotations and images, found before they cost a training run."""

from detlit.data.check.collect import collect
from detlit.data.check.doctor import Checkup, check_data
from detlit.data.check.finding import Finding
from detlit.data.check.fix import Fixed, fix
from detlit.data.check.kinds import KINDS, Severity
from detlit.data.check.records import Problem, Records, Split
from detlit.data.check.scan import Track

__all__ = [
    "KINDS",
    "Checkup",
    "Finding",
    "Fixed",
    "Problem",
    "Records",
    "Severity",
    "Split",
    "Track",
    "check_data",
    "collect",
    "fix",
]
