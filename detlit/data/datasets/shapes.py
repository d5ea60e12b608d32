"""Generated scenes: a data set that needs no download, and that a detector has to learn."""

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from detlit import __version__
from detlit.data.datasets.backgrounds import add_grain, draw_background, draw_clutter
from detlit.data.datasets.base import DetectionDataset
from detlit.data.datasets.truth import GroundTruth
from detlit.errors import ConfigurationError

__all__ = ["ShapesDataset"]

_SHIFT = 4  # OpenCV draws with vertices in 1/16 pixel


class ShapesDataset(DetectionDataset):
    """Coloured shapes of any size, angle and overlap before textured backgrounds with lines, arcs and letters.

    The image of an index is the same on every machine and in every epoch. Boxes hug what is visible of a shape. One
    image in sixteen shows nothing to detect.

    Args:
        num_images: length of the data set.
        image_size: side of the square images, or (height, width), in pixels, at least 64.
        seed: another seed gives other images; use different ones for training and validation.

    Raises:
        ConfigurationError: no images, or too small ones.
    """

    class_names = ("circle", "triangle", "square", "star", "ring", "cross")

    def __init__(self, num_images: int = 1000, image_size: int | tuple[int, int] = 192, seed: int = 0) -> None:
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        if num_images < 1 or min(height, width) < 64 or seed < 0:
            raise ConfigurationError(
                f"num_images={num_images}, image_size={image_size}, seed={seed} gives no shapes: "
                "ask for at least 1 image of 64 pixels, and a seed of at least 0."
            )
        self.num_images = num_images
        self.height, self.width = height, width
        self.seed = seed
        self._latest: tuple[int, NDArray[np.uint8], GroundTruth] | None = None

    def __len__(self) -> int:
        """Return the number of images."""
        return self.num_images

    def load_image(self, index: int) -> NDArray[np.uint8]:
        """Return scene number ``index`` as ``(H, W, 3)`` uint8 RGB."""
        return np.copy(self._scene(index)[1])

    def load_target(self, index: int) -> GroundTruth:
        """Return the shapes in scene number ``index``."""
        return self._scene(index)[2]

    def image_path(self, index: int) -> Path | None:
        """Return ``None``: scenes are in no files."""
        return None

    def fingerprint(self) -> str | None:
        """Return what scenes are drawn from."""
        return f"detlit {__version__}, {self.height}x{self.width}, seed {self.seed}"

    def _scene(self, index: int) -> tuple[int, NDArray[np.uint8], GroundTruth]:
        """Return index, image and objects; the latest is kept, as both are drawn together but asked for in turn."""
        if not 0 <= index < self.num_images:
            raise IndexError(f"index {index} is outside a data set of {self.num_images} images.")
        if self._latest is None or self._latest[0] != index:
            self._latest = index, *_draw_scene(np.random.default_rng((self.seed, index)), self.height, self.width)
        return self._latest


@dataclass(frozen=True)
class _Shape:
    label: int
    centre: NDArray[np.float64]
    radius: float
    contours: list[NDArray[np.int32]]


def _draw_scene(generator: np.random.Generator, height: int, width: int) -> tuple[NDArray[np.uint8], GroundTruth]:
    image = draw_background(generator, height, width)
    draw_clutter(image, generator)
    count = 0 if generator.random() < 1 / 16 else int(generator.integers(1, 9))
    shapes = _place_shapes(generator, count, height, width)
    owners = np.zeros((height, width), dtype=np.uint8)
    for number, shape in enumerate(shapes, 1):
        _draw_shape(image, shape, generator)
        cv2.fillPoly(owners, shape.contours, number, shift=_SHIFT)
    add_grain(image, generator)
    boxes = [_extent(owners == number) for number in range(1, len(shapes) + 1)]
    return image, GroundTruth(boxes=boxes, labels=[shape.label for shape in shapes])


def _place_shapes(generator: np.random.Generator, count: int, height: int, width: int) -> list[_Shape]:
    """Return up to ``count`` shapes inside the image that cover each other a little at most."""
    shapes: list[_Shape] = []
    largest = 0.21 * min(height, width)
    for _ in range(4 * count):
        radius = math.exp(generator.uniform(math.log(11.0), math.log(max(largest, 12.0))))
        centre = generator.uniform((radius, radius), (width - radius, height - radius))
        apart = all(math.dist(centre, other.centre) > 0.85 * (radius + other.radius) for other in shapes)
        if apart and len(shapes) < count:
            label = int(generator.integers(len(ShapesDataset.class_names)))
            shapes.append(_Shape(label, centre, radius, _contours(generator, label, centre, radius)))
    return shapes


def _contours(
    generator: np.random.Generator, label: int, centre: NDArray[np.float64], radius: float
) -> list[NDArray[np.int32]]:
    """Return the outline of a shape, stretched a little and turned, in 1/16 pixel."""
    angle, stretch = generator.uniform(0, 2 * math.pi), generator.uniform(0.85, 1.0)
    rotation = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    to_image = radius * np.array([[stretch], [1.0]]) * rotation
    outlines = _unit_outlines(ShapesDataset.class_names[label])
    return [np.rint((outline @ to_image + centre) * 2**_SHIFT).astype(np.int32) for outline in outlines]


def _unit_outlines(name: str) -> list[NDArray[np.float64]]:
    """Return the outlines ``(V, 2)`` of a shape within the unit circle; a second outline is a hole."""
    if name == "circle":
        return [_polygon(32)]
    if name == "ring":
        return [_polygon(32), 0.5 * _polygon(32)]
    if name == "triangle":
        return [_polygon(3)]
    if name == "square":
        return [_polygon(4)]
    if name == "star":
        return [_polygon(10) * np.tile([[1.0], [0.42]], (5, 1))]
    arm = [(0.32, 0.95), (0.32, 0.32), (0.95, 0.32)]
    quarter = np.array(arm)
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    return [np.concatenate([quarter @ np.linalg.matrix_power(turn, turns) for turns in range(4)])]


def _polygon(corners: int) -> NDArray[np.float64]:
    """Return ``(corners, 2)`` a regular polygon in the unit circle."""
    angles = np.arange(corners) * (2 * math.pi / corners)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _draw_shape(image: NDArray[np.uint8], shape: _Shape, generator: np.random.Generator) -> None:
    """Fill a shape with a colour that stands out where it is, half of the time with a darker edge."""
    x, y = shape.centre.astype(int)
    candidates = generator.integers(0, 256, (4, 3))
    contrast = np.abs(candidates - image[y, x].astype(np.int64)).sum(axis=1)
    colour = candidates[contrast.argmax()]
    cv2.fillPoly(image, shape.contours, colour.tolist(), cv2.LINE_AA, _SHIFT)
    if generator.random() < 0.5:
        cv2.polylines(image, shape.contours, True, (colour // 2).tolist(), 1, cv2.LINE_AA, _SHIFT)


def _extent(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Return the xyxy box around the pixels that are set."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return x, y, x + width, y + height
