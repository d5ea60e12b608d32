"""``detlit predict``: detections for images, from a checkpoint alone, without Lightning."""

import json
import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from detlit.cli.messages import FriendlyErrors
from detlit.data.images import read_image
from detlit.errors import ImageReadError
from detlit.predictor import Predictor, Result, find_images

__all__ = ["main", "predict"]


def main(argv: Sequence[str]) -> None:
    """Run ``detlit predict``.

    Args:
        argv: the command and its options.
    """
    parser = FriendlyErrors(prog="detlit predict", allow_abbrev=False, description="Detect objects in images.")
    parser.add_function_arguments(predict)
    predict(**parser.parse_args(list(argv[1:])).as_dict())


def predict(
    ckpt_path: str,
    source: str,
    output: str = "predictions",
    score_threshold: float | None = None,
    batch_size: int = 8,
    device: str | None = None,
    allow_custom_code: bool = False,
) -> None:
    """Detect objects in images.

    Args:
        ckpt_path: Checkpoint of a training run, or a converted one; everything else comes from it.
        source: An image file, or a folder of images.
        output: Folder for the annotated images and predictions.json (COCO results format).
        score_threshold: Least score of a detection, 0 to 1; by default that of a converted checkpoint, or 0.25.
        batch_size: Images per forward pass.
        device: Where to run, e.g. cuda or cpu; a GPU if there is one.
        allow_custom_code: Build classes from outside detlit and torch that the checkpoint names.
    """
    files = find_images(source)
    predictor = Predictor(
        ckpt_path, score_threshold=score_threshold, device=device, allow_custom_code=allow_custom_code
    )
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    readable = _Readable(files)
    records: list[dict[str, Any]] = []
    for result in predictor(readable, batch_size=batch_size):
        path = readable.paths.popleft()
        cv2.imwrite(str(folder / path.name), cv2.cvtColor(result.draw(), cv2.COLOR_RGB2BGR))
        records += _coco_results(result, path, image_id=files.index(path) + 1)
        print(f"{path}: {_summary(result)}")
    (folder / "predictions.json").write_text(json.dumps(records, indent=1))
    print(f"{len(files) - len(readable.failed)} images, {len(records)} detections, written to {folder}")
    if readable.failed:
        raise ImageReadError(f"{len(readable.failed)} of {len(files)} images could not be read, the others are done.")


class _Readable:
    """The images of those files that can be read, in order; one bad file does not lose the others."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files
        self.paths: deque[Path] = deque()
        self.failed: list[Path] = []

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        for file in self.files:
            try:
                image = read_image(file)
            except ImageReadError as error:
                self.failed.append(file)
                print(f"detlit: warning: {error}", file=sys.stderr)
                continue
            self.paths.append(file)
            yield image


def _summary(result: Result) -> str:
    """Return how many of what was found: ``3 RBC, 1 WBC``."""
    counts = Counter(result.class_names[label] for label in result.labels.tolist())
    return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "nothing"


def _coco_results(result: Result, path: Path, image_id: int) -> list[dict[str, Any]]:
    """Return an image's detections in COCO's results format.

    Files named by a number, as COCO's are, have it as ``image_id``, others their position from 1; ``category_id``
    counts the classes from 1. ``file_name`` and ``category_name`` say it in words.
    """
    identity = {"image_id": int(path.stem) if path.stem.isdecimal() else image_id, "file_name": path.name}
    return [
        {
            **identity,
            "category_id": label + 1,
            "category_name": result.class_names[label],
            "bbox": [round(value, 2) for value in (left, top, right - left, bottom - top)],
            "score": round(score, 5),
        }
        for (left, top, right, bottom), label, score in zip(
            result.boxes.tolist(), result.labels.tolist(), result.scores.tolist(), strict=True
        )
    ]
