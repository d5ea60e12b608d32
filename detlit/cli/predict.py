"""``detlit predict``: detections from a checkpoint or an exported file alone, without Lightning."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from detlit.cli.messages import FriendlyErrors
from detlit.cli.switches import with_switches
from detlit.errors import ConfigurationError, ImageReadError
from detlit.prediction.engines import Precision
from detlit.prediction.files import ResultFiles
from detlit.prediction.sources import expand
from detlit.prediction.tiling import Tiles
from detlit.prediction.video import VIDEO_SUFFIXES, count_frames
from detlit.predictor import Predictor, Result

__all__ = ["main", "predict"]

_SWITCHES = ("recursive", "rectangular", "allow_custom_code")


def main(argv: Sequence[str]) -> None:
    """Run ``detlit predict``.

    Args:
        argv: the command and its options.
    """
    parser = FriendlyErrors(
        prog="detlit predict", allow_abbrev=False, description="Detect objects in images and videos."
    )
    parser.add_function_arguments(predict)
    predict(**parser.parse_args(with_switches(argv[1:], _SWITCHES)).as_dict())


def predict(
    ckpt_path: str,
    source: str,
    output: str = "predictions",
    save: str = "media,json",
    score_threshold: float | dict[str, float] | None = None,
    nms_threshold: float | None = None,
    classes: list[str] | None = None,
    batch_size: int = 8,
    device: str | None = None,
    precision: Precision = "float32",
    image_size: tuple[int, int] | None = None,
    rectangular: bool = False,
    tiles: int | None = None,
    overlap: float = 0.2,
    recursive: bool = False,
    broken: str = "skip",
    max_download: int = 50_000_000,
    allow_custom_code: bool = False,
) -> None:
    """Detect objects in images and videos.

    Args:
        ckpt_path: Checkpoint of a training run, a converted one, or an exported file (.onnx, .xml, .pt2,
            .torchscript); everything else comes from it.
        source: An image or video file, a folder of them, a pattern in quotes, a URL, or the number of a camera.
        output: Folder for what is saved.
        save: What to write: media (annotated images and videos), json (predictions.json, COCO's results format), yolo
            (labels/*.txt), csv (predictions.csv), or several with commas. Image ids are the names of the files if all
            of them are different numbers, otherwise positions from 1.
        score_threshold: Least score of a detection, 0 to 1, or '{name: score, ...}'; by default that of the file, or
            0.25.
        nms_threshold: Of two boxes with a larger IoU the better one stays; by default that of the file.
        classes: Names of the classes to detect, such as '[cat, dog]'; all by default.
        batch_size: Images per forward pass.
        device: Where to run, e.g. cuda or cpu; a GPU if there is one.
        precision: Of a checkpoint's convolutions.
        image_size: Height and width of the network input, such as '[640, 640]'; by default that trained with.
        rectangular: Pad images no more than needed.
        tiles: Look at large images in tiles of that many pixels.
        overlap: Share of a tile that the next one sees again.
        recursive: Look into the subfolders of a folder.
        broken: What to do about images that cannot be read: skip them and say so at the end, or fail.
        max_download: Largest image in bytes that a URL may give.
        allow_custom_code: Build classes from outside detlit and torch that the checkpoint names.
    """
    if broken not in ("skip", "fail"):
        raise ConfigurationError(f"--broken {broken} is unknown: choose skip or fail.")
    items = expand(source, recursive=recursive)
    files = [item for item in items if isinstance(item, Path)]
    folder = Path(output)
    _refuse_to_overwrite(files, folder)
    predictor = Predictor(
        ckpt_path,
        score_threshold=score_threshold,
        nms_threshold=nms_threshold,
        classes=classes,
        device=device,
        precision=precision,
        image_size=image_size,
        rectangular=rectangular,
        tiles=None if tiles is None else Tiles(size=tiles, overlap=overlap),
        allow_custom_code=allow_custom_code,
    )
    failed: list[ImageReadError] = []

    def warn(error: ImageReadError) -> None:
        failed.append(error)
        print(f"detlit: warning: {error}", file=sys.stderr)

    live = not files and (source.isdecimal() or "://" in source)
    results = predictor(
        [*items],
        batch_size=1 if live else batch_size,
        max_download=max_download,
        on_broken=warn if broken == "skip" else None,
    )
    detections = 0
    images = 0
    with ResultFiles(folder, tuple(save.replace(" ", "").split(","))) as out, _progress(files) as show:
        videos = _VideoLines()
        for result in results:
            out.write(result)
            show(result)
            videos.add(result)
            images += result.frame is None
            detections += len(result)
        videos.flush()
    frames = f", {_counted(videos.frames, 'video frame')}" if videos.frames else ""
    print(f"{_counted(images, 'image')}{frames}, {_counted(detections, 'detection')}, written to {folder}")
    if failed:
        raise ImageReadError(f"{len(failed)} of {len(items)} images could not be read, the others are done.")


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


class _VideoLines:
    """One line per image, and one per video when it has ended."""

    def __init__(self) -> None:
        self.frames = 0
        self._path: Path | None = None
        self._counts: Counter[str] = Counter()
        self._length = 0

    def add(self, result: Result) -> None:
        """Print an image's line, or count a frame."""
        if result.frame is None or result.frame == 0:
            self.flush()
        if result.frame is None:
            print(f"{result.path}: {result}")
            return
        self.frames += 1
        self._length += 1
        self._path = result.path
        self._counts.update(result.names)

    def flush(self) -> None:
        """Print the line of a video that has ended."""
        if self._length:
            found = ", ".join(f"{count} {name}" for name, count in self._counts.most_common()) or "nothing"
            print(f"{self._path or 'camera'}: {_counted(self._length, 'frame')}, {found}")
        self._length = 0
        self._counts.clear()


@contextmanager
def _progress(files: Sequence[Path]) -> Iterator[Callable[[Result], None]]:
    """Give a function that shows a frame's place in its video, on a terminal."""
    videos = {file for file in files if file.suffix.lower() in VIDEO_SUFFIXES}
    if not videos or not sys.stderr.isatty():
        yield lambda result: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as bar:
        tasks = {file: bar.add_task(file.name, total=count_frames(file)) for file in videos}

        def show(result: Result) -> None:
            if result.path in tasks and result.frame is not None:
                bar.update(tasks[result.path], completed=result.frame + 1)

        yield show


def _refuse_to_overwrite(files: Sequence[Path], folder: Path) -> None:
    """Raise an error if images, or what they link to, lie in the folder that their annotated twins go to."""
    sources = {parent for file in files for parent in (file.parent.resolve(), file.resolve().parent)}
    if folder.is_dir() and any(folder.samefile(source) for source in sources):
        raise ConfigurationError(
            f"the annotated images in {folder} would overwrite the source images there: choose another --output."
        )
