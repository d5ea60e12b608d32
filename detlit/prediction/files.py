"""Results into files: annotated images and videos, COCO json, YOLO text, CSV."""

import csv
import json
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from detlit.errors import ConfigurationError
from detlit.prediction.results import Result
from detlit.prediction.video import VideoFile

__all__ = ["FORMATS", "ResultFiles"]

FORMATS = ("media", "json", "yolo", "csv")
"""What can be written: annotated images and videos; predictions.json; labels/*.txt; predictions.csv."""

_HEADER = ("path", "frame", "left", "top", "right", "bottom", "score", "label", "name")


class ResultFiles:
    """A folder that results are written to as they come; use it in a ``with`` statement.

    Image ids of ``predictions.json`` are the names of the files if all of them are different numbers, as COCO's are,
    otherwise positions from 1. Files of one name from several folders get numbers behind theirs.

    Args:
        folder: made if missing.
        formats: among :data:`FORMATS`.

    Raises:
        ConfigurationError: an unknown format.
    """

    def __init__(self, folder: str | Path, formats: tuple[str, ...] = ("media", "json")) -> None:
        unknown = [name for name in formats if name not in FORMATS]
        if unknown or not formats:
            raise ConfigurationError(f"format {', '.join(unknown) or 'none'}: choose among {', '.join(FORMATS)}.")
        self.folder = Path(folder)
        self.formats = formats
        self.count = 0
        self._names: dict[str, Path | None] = {}
        self._stems: list[str] = []
        self._records: list[dict[str, Any]] = []
        self._video: tuple[Path | None, VideoFile] | None = None
        self._csv: TextIO | None = None

    def __enter__(self) -> "ResultFiles":
        """Make the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if "csv" in self.formats:
            self._csv = (self.folder / "predictions.csv").open("w", newline="")
            csv.writer(self._csv).writerow(_HEADER)
        if "yolo" in self.formats:
            (self.folder / "labels").mkdir(exist_ok=True)
        return self

    def write(self, result: Result) -> None:
        """Write one result; the frames of a video in their order."""
        self.count += 1
        name = self._name(result)
        if "media" in self.formats:
            self._write_media(result, name)
        if "json" in self.formats:
            self._stems.append(result.path.stem if result.path is not None and result.frame is None else "")
            frame = {} if result.frame is None else {"frame": result.frame}
            self._records += [{**record, **frame} for record in result.to_coco(self.count)]
        if "yolo" in self.formats:
            number = "" if result.frame is None else f"_{result.frame:06d}"
            (self.folder / "labels" / f"{Path(name).stem}{number}.txt").write_text(result.to_yolo())
        if self._csv is not None:
            rows = zip(result.boxes.tolist(), result.scores.tolist(), result.labels.tolist(), result.names, strict=True)
            writer = csv.writer(self._csv)
            for box, score, label, class_name in rows:
                numbers = [*(round(value, 2) for value in box), round(score, 5)]
                writer.writerow([result.path, result.frame, *numbers, label, class_name])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the files; what was found before an error is kept."""
        self._close_video()
        if self._csv is not None:
            self._csv.close()
        if "json" in self.formats:
            stems = self._stems
            if all(stem.isdecimal() for stem in stems) and len({int(stem) for stem in stems}) == len(stems):
                for record in self._records:
                    record["image_id"] = int(stems[record["image_id"] - 1])
            (self.folder / "predictions.json").write_text(json.dumps(self._records, indent=1))

    def _name(self, result: Result) -> str:
        """Return a name that no other file has."""
        if result.path is None:
            return "camera.mp4" if result.frame is not None else f"image_{self.count}.png"
        name, number = result.path.name, 2
        while self._names.setdefault(name, result.path) != result.path:
            name = f"{result.path.stem}_{number}{result.path.suffix}"
            number += 1
        return name

    def _write_media(self, result: Result, name: str) -> None:
        if result.frame is None:
            result.save(self.folder / name)
            return
        if self._video is None or self._video[0] != result.path or result.frame == 0:
            self._close_video()
            path = self.folder / (name if Path(name).suffix.lower() in (".avi", ".mp4") else f"{Path(name).stem}.mp4")
            self._video = result.path, VideoFile(path, result.orig_size, result.fps)
        self._video[1].write(result.draw())

    def _close_video(self) -> None:
        if self._video is not None:
            self._video[1].close()
            self._video = None
