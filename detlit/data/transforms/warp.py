"""Images and boxes under an affine map of continuous pixel coordinates, in which pixel 0 reaches from 0 to 1."""

import cv2
import numpy as np
from numpy.typing import NDArray

from detlit.data.sample import clip_boxes

__all__ = ["draw_image", "visible_boxes", "warp_boxes"]


def draw_image(canvas: NDArray[np.uint8], image: NDArray[np.uint8], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Draw ``image`` ``(h, w, 3)``, mapped by ``matrix`` ``(3, 3)``, onto ``canvas`` ``(H, W, 3)``, bilinearly.

    A map without rotation and shear is rounded so that whole pixels of the image fill whole pixels of the canvas: then
    the resizing of OpenCV does it, which takes a third of the time of its warp. Only what is visible is computed.

    Returns:
        ``(3, 3)`` the map as drawn, which boxes must follow: it leads a point of the image less than a pixel of the
        canvas, and where the image reaches beyond the canvas half a pixel of its own, away from ``matrix``.
    """
    if abs(matrix[0, 1]) + abs(matrix[1, 0]) > 1e-9:
        _warp_onto(canvas, image, matrix)
        return matrix
    (left, right), (first_column, last_column) = _visible_span(
        matrix[0, 0], matrix[0, 2], image.shape[1], canvas.shape[1]
    )
    (top, bottom), (first_row, last_row) = _visible_span(matrix[1, 1], matrix[1, 2], image.shape[0], canvas.shape[0])
    if right <= left or bottom <= top:
        return matrix
    mirror_x, mirror_y = matrix[0, 0] < 0, matrix[1, 1] < 0
    part = image[_mirrored(first_row, last_row, image.shape[0], mirror_y)]
    part = part[:, _mirrored(first_column, last_column, image.shape[1], mirror_x)]
    target = canvas[top:bottom, left:right]
    if part.shape == target.shape:
        target[:] = part
    else:
        cv2.resize(part, (right - left, bottom - top), dst=target, interpolation=cv2.INTER_LINEAR)
    if mirror_x or mirror_y:
        cv2.flip(target, int(mirror_x) - (2 if mirror_x and mirror_y else 0), dst=target)
    drawn = np.eye(3)
    drawn[0, [0, 2]] = _span_map(left, right, first_column, last_column, image.shape[1], mirror_x)
    drawn[1, [1, 2]] = _span_map(top, bottom, first_row, last_row, image.shape[0], mirror_y)
    return drawn


def _visible_span(scale: float, offset: float, length: int, canvas: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return, along one axis, the pixels of the canvas that show an image, and the pixels of the image they show.

    The latter are counted from the edge that lies left or on top on the canvas.
    """
    low, high = sorted((offset, offset + scale * length))
    start, stop = min(max(round(low), 0), canvas), min(max(round(high), 0), canvas)
    factor = max(abs(scale), 1e-12)
    first = 0 if low >= 0 else min(round(-low / factor), length - 1)
    last = length if high <= canvas else max(length - round((high - canvas) / factor), first + 1)
    return (start, stop), (first, last)


def _mirrored(first: int, last: int, length: int, mirror: bool) -> slice:
    """Return the pixels of the image from ``first`` to ``last``, counted from the other edge in a mirror image."""
    return slice(length - last, length - first) if mirror else slice(first, last)


def _span_map(start: int, stop: int, first: int, last: int, length: int, mirror: bool) -> tuple[float, float]:
    """Return (scale, offset) of the map of an axis that leads pixels ``first`` to ``last`` to ``start`` to ``stop``."""
    scale = (stop - start) / (last - first)
    return (-scale, start + scale * (length - first)) if mirror else (scale, start - scale * first)


def _warp_onto(canvas: NDArray[np.uint8], image: NDArray[np.uint8], matrix: NDArray[np.float64]) -> None:
    """Warp ``image`` onto the part of ``canvas`` around it and leave the rest as it is."""
    height, width = image.shape[:2]
    around = warp_boxes(np.array([[0.0, 0.0, width, height]]), matrix)
    clipped = clip_boxes(np.rint(around + np.array([-1, -1, 1, 1])), *canvas.shape[:2])
    left, top, right, bottom = clipped[0].astype(int).tolist()
    if right <= left or bottom <= top:
        return
    to_part = np.array([[1.0, 0.0, -left], [0.0, 1.0, -top], [0.0, 0.0, 1.0]])
    cv2.warpAffine(
        image,
        _between_centres(to_part @ matrix)[:2],
        (right - left, bottom - top),
        dst=canvas[top:bottom, left:right],
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_TRANSPARENT,
    )


def _between_centres(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a map for OpenCV, which counts pixel centres, from one that counts pixel edges."""
    to_edges = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])
    to_centres = np.array([[1.0, 0.0, -0.5], [0.0, 1.0, -0.5], [0.0, 0.0, 1.0]])
    pixels: NDArray[np.float64] = to_centres @ matrix @ to_edges
    return pixels


def warp_boxes(boxes: NDArray[np.float64], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``(N, 4)`` the xyxy boxes around the mapped corners of ``boxes`` ``(N, 4)``."""
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2) @ matrix[:2, :2].T + matrix[:2, 2]
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


def visible_boxes(
    boxes: NDArray[np.float64],
    height: int,
    width: int,
    min_side: float = 2.0,
    max_aspect_ratio: float = 20.0,
    min_visible: float = 0.1,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Cut boxes off at the edges of a canvas and tell which still show an object.

    Args:
        boxes: ``(N, 4)`` xyxy pixels, possibly beyond the canvas.
        height: of the canvas in pixels.
        width: of the canvas in pixels.
        min_side: pixels that both sides must exceed.
        max_aspect_ratio: limit of the longer side over the shorter.
        min_visible: least part of a box's area that must be on the canvas.

    Returns:
        ``(N, 4)`` the boxes on the canvas, and ``(N,)`` whether to keep each.
    """
    clipped = clip_boxes(boxes, height, width)
    sides, whole = clipped[:, 2:] - clipped[:, :2], boxes[:, 2:] - boxes[:, :2]
    short, long = sides.min(axis=1), sides.max(axis=1)
    visible = sides.prod(axis=1) > min_visible * whole.prod(axis=1)
    return clipped, (short > min_side) & (long < max_aspect_ratio * short) & visible
