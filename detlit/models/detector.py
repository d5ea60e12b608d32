"""The detector: backbone, neck and head, and the normalization of their input."""

from collections.abc import Callable, Sequence
from typing import cast

from torch import Tensor, nn

from detlit.errors import ConfigurationError
from detlit.models.backbones import Backbone
from detlit.models.heads import Head
from detlit.models.layers import InputNormalization
from detlit.models.necks import Neck
from detlit.spec import Recorded, plain
from detlit.structures import Preprocessing, RawPredictions

__all__ = ["Detector"]


class Detector(Recorded, nn.Module):
    """Images to raw predictions, the same in training and evaluation.

    Neck and head are given as factories, because their input follows from the backbone and ``num_classes``:
    ``functools.partial(YoloNASNeck, stage_channels=..., ...)`` in a script, ``class_path`` and ``init_args`` in YAML.

    Args:
        backbone: makes feature maps, from fine to coarse.
        neck: makes the neck from the ``out_channels`` and ``strides`` of the backbone.
        head: makes the head from the ``out_channels`` and ``strides`` of the neck and ``num_classes``.
        num_classes: number of classes.
        preprocessing: how images become input; channel order, mean and std are applied here. ``None`` for the defaults.
    """

    def __init__(
        self,
        backbone: Backbone,
        neck: Callable[[Sequence[int], Sequence[int]], Neck],
        head: Callable[[Sequence[int], Sequence[int], int], Head],
        num_classes: int = 80,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        super().__init__()
        self.preprocessing = preprocessing or Preprocessing()
        self.normalization = InputNormalization(self.preprocessing)
        self.backbone = backbone
        self.neck = neck(backbone.out_channels, backbone.strides)
        self.head = head(self.neck.out_channels, self.neck.strides, num_classes)

    @property
    def num_classes(self) -> int:
        """Number of classes of the head."""
        return self.head.num_classes

    def set_preprocessing(self, preprocessing: Preprocessing) -> None:
        """Change how images become input, as weights that were trained otherwise need; the record follows."""
        self.preprocessing = preprocessing
        self.normalization = InputNormalization(preprocessing).to(next(self.parameters()))
        arguments = self.__dict__["_init_arguments"]
        if "preprocessing" in arguments:  # the constructor of a subclass may not take it
            arguments["preprocessing"] = plain(preprocessing)

    def forward(self, images: Tensor) -> RawPredictions:
        """Predict on a batch.

        Args:
            images: ``(B, 3, H, W)`` RGB, uint8 in 0 to 255 or floating point in [0, 1], on the detector's device.

        Raises:
            ConfigurationError: another shape or type, or sides that are no multiples of the largest stride.
        """
        check_shape(images, max(*self.backbone.strides, *self.neck.strides))
        inputs = self.normalization(images, next(self.parameters()).dtype)
        return cast(RawPredictions, self.head(self.neck(self.backbone(inputs))))


def check_shape(images: Tensor, stride: int) -> None:
    """Refuse images that are not ``(B, 3, H, W)`` with sides that are positive multiples of ``stride``.

    Raises:
        ConfigurationError: see above.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ConfigurationError(
            f"images of shape {tuple(images.shape)} are no batch of RGB images: pass (B, 3, H, W), channels first."
        )
    height, width = images.shape[2:]
    if min(height, width) < stride or height % stride or width % stride:
        raise ConfigurationError(
            f"images of {height}x{width} pixels do not fit the detector's strides: "
            f"pad or resize both sides to positive multiples of {stride}."
        )
