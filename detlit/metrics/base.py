"""What a metric must do to be used by the training module and parsed from YAML."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torchmetrics import Metric

from detlit.spec import Recorded
from detlit.structures import Detection, Target

__all__ = ["DetectionMetric"]


class DetectionMetric(Metric, Recorded):
    """A metric over detections and ground truth, both in pixels of the original image.

    It gathers its own state over the ranks in :meth:`compute`, because detections are ragged and a padded sampler
    repeats images; torchmetrics' automatic synchronisation is therefore off.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    def __init__(self) -> None:
        super().__init__(sync_on_compute=False)

    @abstractmethod
    def update(self, detections: Sequence[Detection], targets: Sequence[Target]) -> None:
        """Add images: one detection and one target each, boxes in original pixels.

        A target's ``orig_boxes``, ``orig_labels``, ``orig_iscrowd`` and ``orig_area`` are the ground truth if they are
        there, otherwise its ``boxes`` and ``labels``; its ``dataset_index`` tells repeated images apart.
        """

    @abstractmethod
    def compute(self) -> dict[str, Tensor]:
        """Return the values over the images of every rank, the same on each of them."""

    def plot(self, *_: Any, **__: Any) -> Any:
        """Not drawn here: torchmetrics' plot knows single values only."""
        raise NotImplementedError("detection metrics return several values; plot the logged curves instead.")
