"""Augmentations that move pixels."""

import math

import numpy as np
from numpy.typing import NDArray

from detlit.data.transforms.base import GeometricTransform, checked_probability
from detlit.errors import ConfigurationError

__all__ = ["HorizontalFlip", "RandomAffine", "RandomRotate90", "VerticalFlip"]


class RandomAffine(GeometricTransform):
    """Scale, rotate and shear about the centre of the network input, then shift.

    Each value is drawn uniformly; the same scale holds for both axes.

    Args:
        degrees: rotation is drawn from ``[-degrees, degrees]``.
        translate: shift along each axis, as a part of the input's side, from ``[-translate, translate]``.
        scale: (least, largest) factor.
        shear: angle in degrees along each axis, from ``[-shear, shear]``.

    Raises:
        ConfigurationError: a scale that is not positive, or a range that is the wrong way round or negative.
    """

    def __init__(
        self,
        degrees: float = 0.0,
        translate: float = 0.1,
        scale: tuple[float, float] = (0.5, 1.5),
        shear: float = 0.0,
    ) -> None:
        if not 0 < scale[0] <= scale[1]:
            raise ConfigurationError(f"scale={tuple(scale)} is no range of factors: give (least, largest), above 0.")
        for name, value in (("degrees", degrees), ("translate", translate), ("shear", shear)):
            if value < 0:
                raise ConfigurationError(f"{name}={value} is negative: give the largest deviation to either side.")
        self.degrees, self.translate, self.scale, self.shear = degrees, translate, scale, shear

    def matrix(self, height: int, width: int, generator: np.random.Generator) -> NDArray[np.float64]:
        """Return ``(3, 3)`` a random map of the network input onto itself."""
        factor = generator.uniform(*self.scale)
        angle = math.radians(generator.uniform(-self.degrees, self.degrees))
        shear_x, shear_y = np.tan(np.radians(generator.uniform(-self.shear, self.shear, 2)))
        shift = generator.uniform(-self.translate, self.translate, 2) * (width, height)
        rotation = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        linear = np.array([[1.0, shear_x], [shear_y, 1.0]]) @ rotation * factor
        centre = np.array([width / 2, height / 2])
        matrix = np.eye(3)
        matrix[:2, :2] = linear
        matrix[:2, 2] = centre + shift - linear @ centre
        return matrix


class HorizontalFlip(GeometricTransform):
    """Mirror left and right.

    Args:
        probability: of doing so.
    """

    def __init__(self, probability: float = 0.5) -> None:
        self.probability = checked_probability(probability)

    def matrix(self, height: int, width: int, generator: np.random.Generator) -> NDArray[np.float64]:
        """Return ``(3, 3)`` the mirror image or the identity."""
        return np.array([[-1.0, 0, width], [0, 1, 0], [0, 0, 1]]) if _chance(self, generator) else np.eye(3)


class VerticalFlip(GeometricTransform):
    """Mirror top and bottom, for images without an up: microscopes, satellites.

    Args:
        probability: of doing so.
    """

    def __init__(self, probability: float = 0.5) -> None:
        self.probability = checked_probability(probability)

    def matrix(self, height: int, width: int, generator: np.random.Generator) -> NDArray[np.float64]:
        """Return ``(3, 3)`` the mirror image or the identity."""
        return np.array([[1.0, 0, 0], [0, -1, height], [0, 0, 1]]) if _chance(self, generator) else np.eye(3)


class RandomRotate90(GeometricTransform):
    """Turn by a quarter, a half or three quarters; where the input is not square, shrunk so that all of it stays.

    Args:
        probability: of doing so.
    """

    def __init__(self, probability: float = 0.5) -> None:
        self.probability = checked_probability(probability)

    def matrix(self, height: int, width: int, generator: np.random.Generator) -> NDArray[np.float64]:
        """Return ``(3, 3)`` one of the three turns or the identity."""
        turns = int(generator.integers(1, 4))
        if not _chance(self, generator):
            return np.eye(3)
        cosine, sine = ((0, 1), (-1, 0), (0, -1))[turns - 1]
        factor = min(height, width) / max(height, width) if turns != 2 else 1.0
        linear = factor * np.array([[cosine, sine], [-sine, cosine]], dtype=np.float64)
        centre = np.array([width / 2, height / 2])
        matrix = np.eye(3)
        matrix[:2, :2] = linear
        matrix[:2, 2] = centre - linear @ centre
        return matrix


def _chance(transform: HorizontalFlip | VerticalFlip | RandomRotate90, generator: np.random.Generator) -> bool:
    return bool(generator.random() < transform.probability)
