"""Letterboxing and augmentation."""

from detlit.data.transforms.augment import Augment
from detlit.data.transforms.base import (
    BatchTransform,
    GeometricTransform,
    PhotometricTransform,
    SampleTransform,
    Transform,
)
from detlit.data.transforms.bridges import Albumentations, TorchVision
from detlit.data.transforms.cutout import CutOut
from detlit.data.transforms.geometric import HorizontalFlip, RandomAffine, RandomRotate90, VerticalFlip
from detlit.data.transforms.letterbox import Letterbox, letterbox
from detlit.data.transforms.mixup import Mixup
from detlit.data.transforms.mosaic import Mosaic
from detlit.data.transforms.photometric import BatchHSV, ChannelSwap, RandomHSV

__all__ = [
    "Albumentations",
    "Augment",
    "BatchHSV",
    "BatchTransform",
    "ChannelSwap",
    "CutOut",
    "GeometricTransform",
    "HorizontalFlip",
    "Letterbox",
    "Mixup",
    "Mosaic",
    "PhotometricTransform",
    "RandomAffine",
    "RandomHSV",
    "RandomRotate90",
    "SampleTransform",
    "TorchVision",
    "Transform",
    "VerticalFlip",
    "default_augmentations",
    "letterbox",
]


def default_augmentations() -> list[Transform]:
    """Return what training does to images unless told otherwise: scale, shift, mirror and change colours."""
    return [RandomAffine(), HorizontalFlip(), RandomHSV()]
