"""Letterboxing and augmentation."""

from detlit.data.transforms.compose import Augment, GeometricTransform, PhotometricTransform, Transform
from detlit.data.transforms.geometric import HorizontalFlip, RandomAffine, VerticalFlip
from detlit.data.transforms.letterbox import Letterbox, letterbox
from detlit.data.transforms.photometric import RandomHSV

__all__ = [
    "Augment",
    "GeometricTransform",
    "HorizontalFlip",
    "Letterbox",
    "PhotometricTransform",
    "RandomAffine",
    "RandomHSV",
    "Transform",
    "VerticalFlip",
    "default_augmentations",
    "letterbox",
]


def default_augmentations() -> list[Transform]:
    """Return what training does to images unless told otherwise: scale, shift, mirror and change colours."""
    return [RandomAffine(), HorizontalFlip(), RandomHSV()]
