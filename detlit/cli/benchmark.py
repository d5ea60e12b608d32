"""``detlit benchmark``: how fast a checkpoint, an exported file or an architecture is here, without Lightning."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detlit.cli.messages import FriendlyErrors
from detlit.cli.switches import with_switches
from detlit.data.images import read_image
from detlit.data.transforms.letterbox import resized
from detlit.errors import ConfigurationError
from detlit.export.files import SUFFIXES, export_file
from detlit.export.graph import DecodedDetector
from detlit.export.session import Session, open_exported
from detlit.export.timing import Timing, format_timings, time_model
from detlit.models import presets
from detlit.models.checkpoint_entry import detector_from_checkpoint, read_checkpoint
from detlit.models.detector import Detector
from detlit.prediction.engines import usable_device
from detlit.structures import Preprocessing

__all__ = ["benchmark", "main"]


def main(argv: Sequence[str]) -> None:
    """Run ``detlit benchmark``.

    Args:
        argv: the command and its options.
    """
    parser = FriendlyErrors(
        prog="detlit benchmark", allow_abbrev=False, description="Measure how fast a model is here."
    )
    parser.add_function_arguments(benchmark)
    benchmark(**parser.parse_args(with_switches(argv[1:], ["allow_custom_code"])).as_dict())


def benchmark(
    ckpt_path: str | None = None,
    model: str | None = None,
    formats: str = "torch",
    device: str | None = None,
    batch: int | str = "1",
    size: int | str | None = None,
    image: str | None = None,
    rounds: int = 20,
    threads: int | None = None,
    output: str | None = None,
    allow_custom_code: bool = False,
) -> None:
    """Measure how fast a model is: latency, images per second and memory, split by stage.

    Args:
        ckpt_path: Checkpoint, or an exported file.
        model: Architecture instead, with random weights, such as yolo_nas_s.
        formats: Among torch, onnx, openvino, torch_export and torchscript, with commas; files are made on the fly.
        device: Where torch runs, e.g. cuda or cpu; a GPU if there is one. Files run on the CPU.
        batch: Images at once; several with commas.
        size: Sides of the network input in pixels; several with commas; by default that of the model.
        image: Image to look at; by default noise of 640 x 480, in which random weights find nothing.
        rounds: Batches that are timed.
        threads: Processor cores to use; all by default.
        output: JSON file to write.
        allow_custom_code: Build classes from outside detlit and torch that the checkpoint names.
    """
    if (ckpt_path is None) == (model is None):
        raise ConfigurationError("give either --ckpt_path or --model, such as --model yolo_nas_s.")
    if rounds < 1:
        raise ConfigurationError(f"rounds={rounds} measures nothing: give 1 or more.")
    if threads is not None:
        if threads < 1:
            raise ConfigurationError(f"threads={threads} computes nothing: give 1 or more.")
        torch.set_num_threads(threads)
    batches = _numbers("batch", batch)
    sides: list[int | None] = [None] if size is None else [*_numbers("size", size)]
    pixels = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    if image is not None:
        pixels = read_image(image)
    timings: list[Timing] = []
    where = usable_device(device)
    with tempfile.TemporaryDirectory() as folder:
        for name, subject, preprocessing in _subjects(
            ckpt_path, model, formats, where, threads, folder, batches, sides, allow_custom_code
        ):
            on = where if isinstance(subject, DecodedDetector) else torch.device("cpu")
            for side in sides:
                shape = preprocessing if side is None else resized(preprocessing, (side, side))
                for count in batches:
                    timings.append(
                        time_model(subject, pixels, shape, batch=count, rounds=rounds, device=on, format=name)
                    )
    print(f"{ckpt_path or model}, {where.type}, {torch.get_num_threads()} threads, {rounds} rounds")
    print(format_timings(timings))
    if output is not None:
        Path(output).write_text(json.dumps([timing.to_dict() for timing in timings], indent=1))
        print(f"written to {output}")


def _numbers(name: str, text: int | str) -> list[int]:
    try:
        numbers = [int(part) for part in str(text).split(",")]
    except ValueError:
        numbers = [0]
    if min(numbers) < 1:
        raise ConfigurationError(f"--{name} {text} is no list of positive numbers: give e.g. --{name} 1,8.")
    return numbers


def _subjects(
    ckpt_path: str | None,
    model: str | None,
    formats: str,
    device: torch.device,
    threads: int | None,
    folder: str,
    batches: list[int],
    sides: list[int | None],
    allow_custom_code: bool,
) -> Iterator[tuple[str, DecodedDetector | Session, Preprocessing]]:
    """Yield what is measured, one after another."""
    if ckpt_path is not None and Path(ckpt_path).suffix in SUFFIXES.values():
        session = open_exported(ckpt_path, threads=threads)
        _refuse_other_shapes(ckpt_path, session, batches, sides)
        yield Path(ckpt_path).suffix[1:], session, Preprocessing.from_dict(session.metadata["preprocessing"])
        return
    detector = _detector(ckpt_path, model, allow_custom_code)
    for name in formats.replace(" ", "").split(","):
        if name == "torch":
            fused: Any = DecodedDetector(detector).eval().to(device)
            yield name, fused.to(memory_format=torch.channels_last), detector.preprocessing
            continue
        path = export_file(detector, Path(folder) / "model", format=name)  # type: ignore[arg-type]
        yield name, open_exported(path, threads=threads), detector.preprocessing


def _refuse_other_shapes(path: str, session: Session, batches: list[int], sides: list[int | None]) -> None:
    dynamic = session.metadata["dynamic"]
    if ("batch" not in dynamic and batches != [1]) or ("size" not in dynamic and sides != [None]):
        raise ConfigurationError(
            f"{path} does not take any batch and size: leave --batch or --size out, or export it "
            "with --dynamic batch,size."
        )


def _detector(ckpt_path: str | None, model: str | None, allow_custom_code: bool) -> Detector:
    if ckpt_path is not None:
        stored = read_checkpoint(ckpt_path)
        return detector_from_checkpoint(stored, allow_custom_code=allow_custom_code).eval().fuse(full=True)
    if model not in presets.__all__:
        raise ConfigurationError(f"there is no model {model}: choose among {', '.join(presets.__all__)}.")
    built: Detector = getattr(presets, model)()
    return built.eval().fuse(full=True)
