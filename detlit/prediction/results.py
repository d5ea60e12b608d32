"""What was found in an image, and the forms people want it in."""

import json
import math
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from detlit.data.images import write_image
from detlit.errors import MissingExtraError

__all__ = ["Result"]


@dataclass(frozen=True, eq=False)
class Result:
    """Detections in one image, best first.

    Attributes:
        boxes: ``(K, 4)`` float32 xyxy pixels of the original image, within it.
        scores: ``(K,)`` float32 in [0, 1].
        labels: ``(K,)`` int64.
        class_names: names of all classes.
        image: ``(H, W, 3)`` uint8 RGB, the original image.
        path: where the image came from, if from a file or a URL.
        frame: position in its video, from 0; ``None`` for an image.
        fps: frames per second of its video, where known.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    image: NDArray[np.uint8]
    path: Path | None = None
    frame: int | None = None
    fps: float | None = None

    def __len__(self) -> int:
        """Return the number of detections."""
        return len(self.boxes)

    def __str__(self) -> str:
        """Return how many of what was found: ``3 RBC, 1 WBC``."""
        counts = Counter(self.names)
        return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "nothing"

    @property
    def orig_size(self) -> tuple[int, int]:
        """(height, width) of the image in pixels."""
        height, width = self.image.shape[:2]
        return height, width

    @property
    def names(self) -> list[str]:
        """The class name of each detection."""
        return [self.class_names[label] for label in self.labels.tolist()]

    def draw(self) -> NDArray[np.uint8]:
        """Return the image ``(H, W, 3)`` uint8 RGB with its detections drawn on it."""
        from detlit.reports.draw import draw_boxes

        return draw_boxes(self.image, self.boxes, self.labels.tolist(), self.class_names, self.scores.tolist())

    def save(self, path: str | Path) -> Path:
        """Write the image with its detections drawn on it, and return its file.

        Args:
            path: a file, or a folder that exists, which gets a file of the image's own name.

        Raises:
            OSError: the file cannot be written.
        """
        path = Path(path)
        if path.is_dir():
            stem = self.path.stem if self.path else "image"
            number = "" if self.frame is None else f"_{self.frame:06d}"
            suffix = self.path.suffix if self.path and self.frame is None else ".png"
            path = path / f"{stem}{number}{suffix}"
        if not cv2.haveImageWriter(str(path)):
            path = path.with_name(f"{path.name}.png")
        write_image(path, self.draw())
        return path

    def show(self) -> None:
        """Show the image with its detections, in the notebook or else in the system's image viewer."""
        notebook = sys.modules.get("IPython")
        if notebook is not None and notebook.get_ipython() is not None:
            notebook.display.display(self)
            return
        import webbrowser

        with tempfile.NamedTemporaryFile(prefix="detlit_", suffix=".png", delete=False) as file:
            pass  # not deleted: the viewer opens it later
        self.save(file.name)
        webbrowser.open(Path(file.name).as_uri())

    def _repr_png_(self) -> bytes:
        """Return the annotated image as notebooks show it."""
        return bytes(cv2.imencode(".png", cv2.cvtColor(self.draw(), cv2.COLOR_RGB2BGR))[1])

    def crop(self) -> list[NDArray[np.uint8]]:
        """Return the part of the image inside each box, ``(h, w, 3)`` uint8 RGB; at least one pixel."""
        height, width = self.orig_size
        crops = []
        for left, top, right, bottom in self.boxes.tolist():
            x, y = min(math.floor(left), width - 1), min(math.floor(top), height - 1)
            crops.append(self.image[y : max(math.ceil(bottom), y + 1), x : max(math.ceil(right), x + 1)].copy())
        return crops

    def to_supervision(self) -> Any:
        """Return the detections as ``supervision.Detections``, with ``data["class_name"]``.

        Raises:
            MissingExtraError: supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise MissingExtraError("to_supervision needs supervision: pip install 'detlit[supervision]'.") from error
        return supervision.Detections(
            xyxy=self.boxes,
            confidence=self.scores,
            class_id=self.labels,
            data={"class_name": np.array(self.names, dtype=np.str_)},
        )

    def to_coco(self, image_id: int = 1) -> list[dict[str, Any]]:
        """Return the detections in COCO's results format, with names beside the numbers.

        Args:
            image_id: of the image. ``category_id`` counts the classes from 1.
        """
        return [
            {
                "image_id": image_id,
                "file_name": self.path.name if self.path else None,
                "category_id": label + 1,
                "category_name": self.class_names[label],
                "bbox": [round(value, 2) for value in (left, top, right - left, bottom - top)],
                "score": round(score, 5),
            }
            for (left, top, right, bottom), label, score in self._rows()
        ]

    def to_yolo(self) -> str:
        """Return a line for each detection: label, centre and size as shares of the image, score."""
        height, width = self.orig_size
        lines = []
        for (left, top, right, bottom), label, score in self._rows():
            shares = ((left + right) / 2 / width, (top + bottom) / 2 / height, (right - left) / width)
            values = (*shares, (bottom - top) / height, score)
            lines.append(f"{label} " + " ".join(f"{value:.6f}" for value in values) + "\n")
        return "".join(lines)

    def to_json(self) -> str:
        """Return the detections as JSON: path, frame, size, and box, score, label and name of each."""
        found = [
            {"box": [round(value, 2) for value in box], "score": round(score, 5), "label": label, "name": name}
            for (box, label, score), name in zip(self._rows(), self.names, strict=True)
        ]
        path = None if self.path is None else str(self.path)
        return json.dumps({"path": path, "frame": self.frame, "orig_size": self.orig_size, "detections": found})

    def _rows(self) -> list[tuple[list[float], int, float]]:
        return list(zip(self.boxes.tolist(), self.labels.tolist(), self.scores.tolist(), strict=True))
