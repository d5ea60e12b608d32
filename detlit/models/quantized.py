"""What a detector knows of its quantization; how it is done is in :mod:`detlit.quantization`."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from detlit.spec import Recorded

if TYPE_CHECKING:
    from detlit.models.detector import Detector

__all__ = ["DetectorQuantization"]


class DetectorQuantization(Recorded, ABC):
    """Base of what replaces layers of a detector by ones that round as integers do.

    It is an argument of the detector, so that a checkpoint rebuilds the same layers.
    """

    @abstractmethod
    def apply(self, detector: "Detector") -> None:
        """Replace layers in place; the same arguments on the same detector give the same names of weights."""
