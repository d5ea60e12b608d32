"""``detlit export``: a checkpoint into one file that other runtimes run, without Lightning."""

from collections.abc import Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Literal, cast

from detlit.cli.messages import FriendlyErrors
from detlit.cli.switches import with_switches
from detlit.data.transforms.letterbox import resized
from detlit.errors import ConfigurationError
from detlit.export.comparison import compare
from detlit.export.files import SUFFIXES, Format, export_file, files_of, named_if_good
from detlit.export.onnx_file import Dynamic
from detlit.export.session import open_exported
from detlit.export.suppression import NMSFormat, stored_suppression
from detlit.models.checkpoint_entry import detector_from_checkpoint, read_checkpoint
from detlit.prediction.sources import read_frames

__all__ = ["export", "main"]

_SWITCHES = ("half", "verify", "allow_custom_code")


def main(argv: Sequence[str]) -> None:
    """Run ``detlit export``.

    Args:
        argv: the command and its options.
    """
    parser = FriendlyErrors(
        prog="detlit export", allow_abbrev=False, description="Write a checkpoint into a file that other runtimes run."
    )
    parser.add_function_arguments(export)
    export(**parser.parse_args(with_switches(argv[1:], _SWITCHES)).as_dict())


def export(
    ckpt_path: str,
    output: str | None = None,
    format: Format = "onnx",
    dynamic: str = "batch,size",
    nms: NMSFormat = "none",
    input: Literal["uint8", "float"] = "uint8",
    half: bool = False,
    image_size: tuple[int, int] | None = None,
    score_threshold: float | None = None,
    nms_threshold: float | None = None,
    max_predictions: int | None = None,
    opset: int | None = None,
    verify: bool = False,
    images: str | None = None,
    allow_custom_code: bool = False,
) -> None:
    """Write a checkpoint, with preprocessing and decoding, into one file.

    Args:
        ckpt_path: Checkpoint of a training run, a converted or a quantized one.
        output: File to write; by default beside the checkpoint.
        format: Of the file.
        dynamic: What the file takes any amount of: batch, size, both with a comma, or none.
        nms: Put the suppression into the file: flat gives rows (image, x1, y1, x2, y2, score, label), batch gives
            num_detections, boxes, scores and labels of each image.
        input: Bytes, or floating point in [0, 1].
        half: Weights in float16.
        image_size: Height and width of the network input, such as '[640, 640]'; by default that trained with.
        score_threshold: Least score of a detection; by default that of the checkpoint, or 0.25.
        nms_threshold: Of two boxes with a larger IoU the better one stays; by default that of the checkpoint.
        max_predictions: Detections per image; by default that of the checkpoint.
        opset: Version of ONNX' operators.
        verify: Compare the file with torch on --images, at several sizes and numbers of images; fail unless it is good.
            It has its name only then.
        images: Image or folder of images for --verify.
        allow_custom_code: Build classes from outside detlit and torch that the checkpoint names.
    """
    if verify and images is None:
        raise ConfigurationError("--verify compares the file with torch on real images: set --images to some.")
    path = Path(output or ckpt_path).with_suffix(SUFFIXES[format])
    if path.exists():
        raise ConfigurationError(f"there is a file {path} already: choose another --output.")
    stored = read_checkpoint(ckpt_path)
    detector = detector_from_checkpoint(stored, allow_custom_code=allow_custom_code).eval()
    if image_size is not None:
        detector.set_preprocessing(resized(detector.preprocessing, image_size))
    suppression = stored_suppression(
        stored["detlit"],
        nms,
        allow_custom_code=allow_custom_code,
        score_threshold=score_threshold,
        nms_threshold=nms_threshold,
        max_predictions=max_predictions,
    )
    axes = [] if dynamic == "none" else dynamic.replace(" ", "").split(",")
    shown = [frame.image for frame in islice(read_frames(images), 8)] if verify else []
    with named_if_good(path) if verify else nullcontext(path) as written:
        export_file(
            detector,
            written,
            format=format,
            class_names=stored["detlit"]["class_names"],
            dynamic=cast("list[Dynamic]", axes),
            input_dtype="uint8" if input == "uint8" else "float32",
            nms=nms,
            suppression=suppression,
            half=half,
            opset=opset,
        )
        if verify:
            comparison = compare(detector, open_exported(written), shown, half=half)
            print(comparison)
            comparison.require()
    size = sum(part.stat().st_size for part in files_of(path)) / 1e6
    print(f"{'verified and ' if verify else ''}written to {path} ({size:.2f} MB)")
