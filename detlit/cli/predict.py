"""``detlit predict``: detections for images, from a checkpoint alone, without Lightning."""

import json
import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detlit.cli.messages import FriendlyErrors
from detlit.data.images import read_image, write_image
from detlit.errors import ConfigurationError, ImageReadError
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
        output: Folder for the annotated images and predictions.json, in COCO's results format. Its image ids are the
            names of the files if all of them are different numbers, otherwise their positions from 1.
        score_threshold: Least score of a detection, 0 to 1; by default that of a converted checkpoint, or 0.25.
        batch_size: Images per forward pass.
        device: Where to run, e.g. cuda or cpu; a GPU if there is one.
        allow_custom_code: Build classes from outside detlit and torch that the checkpoint names.
    """
    files = find_images(source)
    folder = Path(output)
    _refuse_to_overwrite(files, folder)
    predictor = Predictor(
        ckpt_path, score_threshold=score_threshold, device=device, allow_custom_code=allow_custom_code
    )
    readable = _Readable(files)
    results = predictor(readable, batch_size=batch_size)
    folder.mkdir(parents=True, exist_ok=True)
    image_ids = dict(zip(files, _image_ids(files), strict=True))
    records: list[dict[str, Any]] = []
    for result in results:
        path = readable.paths.popleft()
        write_image(folder / path.name, result.draw())
        records += _coco_results(result, path, image_ids[path])
        print(f"{path}: {_summary(result)}")
    (folder / "predictions.json").write_text(json.dumps(records, indent=1))
    print(f"{len(files) - len(readable.failed)} images, {len(records)} detections, written to {folder}")
    if readable.failed:
        raise ImageReadError(f"{len(readable.failed)} of {len(files)} images could not be read, the others are done.")


def _refuse_to_overwrite(files: Sequence[Path], folder: Path) -> None:
    """Raise an error if images, or what they link to, lie in the folder that their annotated twins go to."""
    sources = {parent for file in files for parent in (file.parent.resolve(), file.resolve().parent)}
    if folder.is_dir() and any(folder.samefile(source) for source in sources):
        raise ConfigurationError(
            f"the annotated images in {folder} would overwrite the source images there: choose another --output."
        )


def _image_ids(files: Sequence[Path]) -> list[int]:
    """Return the numbers that name the files, as COCO's do, if all are named so and differ, otherwise 1, 2, 3, ..."""
    numbers = [int(file.stem) for file in files if file.stem.isdecimal()]
    return numbers if len(set(numbers)) == len(files) else list(range(1, len(files) + 1))


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

    ``category_id`` counts the classes from 1; ``file_name`` and ``category_name`` say image and class in words.
    """
    identity = {"image_id": image_id, "file_name": path.name}
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
