"""Pascal VOC annotation files, one xml per image; http://host.robots.ox.ac.uk/pascal/VOC describes the format."""

import math
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from detlit.errors import AnnotationError, DatasetError

__all__ = ["VocAnnotation", "read_voc_file"]


@dataclass(frozen=True)
class VocAnnotation:
    """What one xml file says.

    Attributes:
        size: (height, width) in pixels; ``None`` where the file does not say, or says 0.
        names: the class of each object.
        boxes: xmin, ymin, xmax, ymax of each object, as written: not checked against the image.
        difficult: whether each object is marked so.
    """

    size: tuple[int, int] | None = None
    names: tuple[str, ...] = ()
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    difficult: tuple[bool, ...] = ()


def read_voc_file(path: str | Path) -> VocAnnotation:
    """Read an xml file; parts of objects (``<part>``) are left out.

    Raises:
        DatasetError: the file is missing or unreadable.
        AnnotationError: it is no xml, or an object lacks its name or its box, or a number is none.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except OSError as error:
        raise DatasetError(f"annotation file {path} cannot be read ({error.strerror}): check it is there.") from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise AnnotationError(f"annotation file {path} is not valid xml ({error}): export it again.") from error
    if root.tag != "annotation":
        raise AnnotationError(f"annotation file {path} is no VOC file: its root is <{root.tag}>, not <annotation>.")
    objects = root.findall("object")
    return VocAnnotation(
        size=_size(root, path),
        names=tuple(_name(item, number, path) for number, item in enumerate(objects, 1)),
        boxes=tuple(_box(item, number, path) for number, item in enumerate(objects, 1)),
        difficult=tuple((item.findtext("difficult") or "").strip() in ("1", "true", "True") for item in objects),
    )


def _size(root: ElementTree.Element, path: str | Path) -> tuple[int, int] | None:
    texts = [root.findtext(f"size/{side}") for side in ("height", "width")]
    if any(text is None or not text.strip() for text in texts):
        return None
    numbers = [_number(text) for text in texts]
    if any(number is None or number < 0 or number % 1 for number in numbers):
        raise AnnotationError(
            f"{path} has height {texts[0]} and width {texts[1]}: write positive integers, or leave <size> out."
        )
    height, width = (int(number or 0) for number in numbers)
    return (height, width) if height and width else None


def _name(item: ElementTree.Element, number: int, path: str | Path) -> str:
    name = (item.findtext("name") or "").strip()
    if not name:
        raise AnnotationError(f"{path}: object {number} has no <name>: add its class.")
    return name


def _box(item: ElementTree.Element, number: int, path: str | Path) -> tuple[float, float, float, float]:
    texts = [item.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
    x1, y1, x2, y2 = (_number(text) for text in texts)
    if x1 is None or y1 is None or x2 is None or y2 is None:
        found = ", ".join("nothing" if text is None else text.strip() for text in texts)
        raise AnnotationError(
            f"{path}: object {number} has the box {found}: write four finite numbers, xmin, ymin, xmax and ymax."
        )
    return x1, y1, x2, y2


def _number(text: str | None) -> float | None:
    """Return a finite number, or ``None`` for anything else."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None
