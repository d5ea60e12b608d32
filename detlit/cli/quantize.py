"""``detlit quantize``: a checkpoint that computes with 8-bit integers, and its ONNX file, without training."""

import json
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from detlit.cli.configs import flags, with_shipped_configs
from detlit.cli.messages import FriendlyErrors
from detlit.cli.scoring import mean_average_precision
from detlit.cli.switches import with_switches
from detlit.data import DetectionDataModule
from detlit.errors import ConfigurationError, MissingExtraError
from detlit.export import compare, export_onnx, open_exported, verify
from detlit.export.files import named_if_good
from detlit.export.suppression import NMSFormat, stored_suppression
from detlit.models.checkpoint_entry import detector_from_checkpoint, make_entry, read_checkpoint
from detlit.models.detector import Detector
from detlit.models.torch_files import write_torch_file
from detlit.postprocess import PostPredictionCallback
from detlit.postprocess.stored import stored_callback
from detlit.quantization import (
    Quantization,
    Quantized,
    calibration_batches,
    format_report,
    format_sensitivity,
    quantize,
    sensitivity,
)
from detlit.quantization.quantization import Backend
from detlit.quantization.ranges import Method
from detlit.spec import as_config, check_trusted, spec_of

__all__ = ["main", "quantize_checkpoint"]

_SWITCHES = ("verify", "allow_custom_code")

WORST = 10
"""Rows of the tables that are printed."""


def main(argv: Sequence[str]) -> None:
    """Run ``detlit quantize``.

    Args:
        argv: the command and its options.
    """
    parser = FriendlyErrors(
        prog="detlit quantize",
        allow_abbrev=False,
        description="Make a checkpoint, and an ONNX file, that compute with 8-bit integers, without training.",
    )
    parser.add_function_arguments(quantize_checkpoint, skip={"data"})
    parser.add_class_arguments(DetectionDataModule, "data", sub_configs=True)
    arguments = with_switches(argv[1:], _SWITCHES)
    given = {name: value for _, name, value in flags(arguments)}
    if "ckpt_path" in given:
        arguments = [*_data_of(given["ckpt_path"], given), *with_shipped_configs(arguments)]
    parsed = parser.instantiate(parser.parse_args(arguments))
    quantize_checkpoint(**parsed.as_dict())


def quantize_checkpoint(
    ckpt_path: str,
    output: str,
    data: DetectionDataModule,
    onnx: str | None = None,
    nms: NMSFormat = "none",
    backend: Backend = "cpu",
    method: Method = "mse",
    percentile: float = 99.999,
    calibration_batches: int = 16,
    calibration_batch_size: int = 8,
    weight_bits: int = 8,
    skip: list[str] | None = None,
    rank: Literal["sqnr", "map"] | None = None,
    skip_sensitive: int = 0,
    max_drop: float | None = None,
    val_batches: int | None = None,
    verify: bool = False,
    allow_custom_code: bool = False,
) -> None:
    """Quantize a checkpoint after training.

    Args:
        ckpt_path: Checkpoint of a float detector.
        output: Checkpoint to write; it validates, tests, predicts and exports as any other.
        data: The data; by default those the checkpoint was trained on.
        onnx: ONNX file to write too.
        nms: Put the suppression into that file, see detlit export --help; both read the same settings.
        backend: Who will run the integers.
        method: How to choose the ranges of activations.
        percentile: Share of the values that --method percentile does not clip, in percent.
        calibration_batches: Batches of training images that the ranges come from.
        calibration_batch_size: Images in each.
        weight_bits: Bits of the weights; 7 for x86 processors without VNNI.
        skip: Layers that stay in floating point, by name, pattern or class.
        rank: Print how sensitive each layer is, by the noise it adds to the output or by the mAP it costs.
        skip_sensitive: Number of the most sensitive layers that stay in floating point.
        max_drop: Leave out sensitive layers until the mAP is at most that much lower, such as 0.01.
        val_batches: Batches of the validation split that mAPs are measured on; all by default, 0 for no mAP.
        verify: Compare the ONNX file with torch, boxes and scores at the size of training and detections at several
            sizes and numbers of images, and fail unless it is good; it has its name only then.
        allow_custom_code: Build classes from outside detlit and torch that the checkpoint names.
    """
    _refuse_contradictions(output, onnx, nms, verify, data, val_batches, max_drop, rank)
    if onnx is not None:
        _require_packages("--onnx", "onnx", "onnxscript")
    if verify:
        _require_packages("--verify", "onnxruntime")
    stored = read_checkpoint(ckpt_path)
    suppression = stored_suppression(stored["detlit"], nms, allow_custom_code=allow_custom_code)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    detector = detector_from_checkpoint(stored, allow_custom_code=allow_custom_code).eval().to(device)
    images = _calibration_images(data, detector, calibration_batches, calibration_batch_size)
    scorer = (
        _Scorer(stored_callback(stored["detlit"], allow_custom_code=allow_custom_code), data, val_batches)
        if "val" in data.splits
        else None
    )
    done = quantize(
        detector,
        images,
        Quantization(backend, skip or (), weight_bits),
        method=method,
        percentile=percentile,
        skip_sensitive=skip_sensitive,
        max_drop=max_drop,
        score=None if scorer is None else scorer.of_detector,
    )
    _print_layers(done, images, rank, scorer)
    measured = None if val_batches == 0 else scorer
    if measured is not None:
        before, after = measured.of_detector(detector), measured.of_detector(done.detector)
        print(f"\nmAP: {before:.4f} before, {after:.4f} after ({after - before:+.4f})")
    write_torch_file(_checkpoint(done.detector, stored), output)
    print(f"written to {output}")
    if onnx is not None:
        names = stored["detlit"]["class_names"]
        write = partial(export_onnx, done.detector, class_names=names, suppression=suppression)
        _export(
            write,
            Path(onnx),
            nms,
            partial(_verify, done.detector, detector, data=data, images=images, scorer=measured) if verify else None,
        )


def _refuse_contradictions(
    output: str,
    onnx: str | None,
    nms: NMSFormat,
    verify: bool,
    data: DetectionDataModule,
    val_batches: int | None,
    max_drop: float | None,
    rank: str | None,
) -> None:
    for path in (output, onnx):
        if path is not None and Path(path).exists():
            raise ConfigurationError(f"there is a file {path} already: choose another name.")
    if "train" not in data.splits:
        raise ConfigurationError("calibration looks at training images and there are none: set data.train.")
    if verify and onnx is None:
        raise ConfigurationError("--verify compares the ONNX file and none is asked for: set --onnx.")
    if nms != "none" and onnx is None:
        raise ConfigurationError(f"--nms {nms} is of the ONNX file and none is asked for: set --onnx.")
    if (max_drop is not None or rank == "map") and ("val" not in data.splits or val_batches == 0):
        raise ConfigurationError(
            "--max_drop and --rank map measure the mAP, and there is no validation split to do so: "
            "set data.val, and no --val_batches 0."
        )


def _require_packages(option: str, *names: str) -> None:
    """Find out that an extra is missing before calibration, not after it."""
    for name in names:
        if find_spec(name) is None:
            raise MissingExtraError(f"{option} needs {name}: pip install 'detlit[onnx]'.")


def _calibration_images(
    data: DetectionDataModule, detector: Detector, num_batches: int, batch_size: int
) -> list[Tensor]:
    dataset: Any = data.dataset("train")
    batches = calibration_batches(
        dataset, detector.preprocessing, num_batches=num_batches, batch_size=batch_size, seed=data.seed
    )
    return list(batches)


def _print_layers(
    done: Quantized, images: list[Tensor], rank: Literal["sqnr", "map"] | None, scorer: "_Scorer | None"
) -> None:
    """Print how well layers survive, how sensitive they are if asked to, and which ones do not round."""
    print(format_report(done.layers, worst=WORST))
    if rank is not None:
        ranking = sensitivity(done.detector, images[:2], scorer.of_detector if scorer and rank == "map" else None)
        print(f"\n{format_sensitivity(ranking, by_score=rank == 'map')}")
    if left_out := done.detector.quantization.skip:  # type: ignore[union-attr]
        print(f"\nin floating point: {', '.join(left_out)}")


class _Scorer:
    """The mAP on the validation split, of detectors and of exported files."""

    def __init__(self, callback: PostPredictionCallback, data: DetectionDataModule, num_batches: int | None) -> None:
        self.callback = callback
        self.loader: Any = data.val_dataloader()
        self.num_batches = num_batches
        self._float: tuple[Detector, float] | None = None

    def of_detector(self, detector: Detector) -> float:
        """Return the mAP of a detector; asked again about one that is not quantized, it remembers."""
        if self._float is not None and self._float[0] is detector:
            return self._float[1]
        device = next(detector.parameters()).device
        value = self._measure(lambda images: self.callback(detector(images.to(device))))
        if detector.quantization is None:
            self._float = detector, value
        return value

    def of_decoded(self, predict: Callable[[Tensor], tuple[Tensor, Tensor]]) -> float:
        """Return the mAP of what computes boxes and scores."""
        suppress: Any = self.callback.suppress
        return self._measure(lambda images: suppress(*predict(images), tuple(images.shape[2:])))

    def _measure(self, detect: Any) -> float:
        return mean_average_precision(detect, self.loader, self.num_batches)


def _export(write: Callable[..., Path], path: Path, nms: NMSFormat, check: Callable[[Path, Path], None] | None) -> None:
    """Write an ONNX file; if it is to be checked, give it its name only once it is found good.

    Args:
        write: writes a file, given its path and ``nms``.
        path: of the file.
        nms: of the file.
        check: raises unless the file, and one without suppression, are good; ``None`` for no check.
    """
    if check is None:
        write(path, nms=nms)
        print(f"written to {path}")
        return
    with named_if_good(path) as unverified, tempfile.TemporaryDirectory() as folder:
        write(unverified, nms=nms)
        check(unverified, unverified if nms == "none" else write(Path(folder) / "boxes.onnx", nms="none"))
    print(f"verified and written to {path}")


def _verify(
    quantized: Detector,
    detector: Detector,
    path: Path,
    boxes_path: Path,
    *,
    data: DetectionDataModule,
    images: list[Tensor],
    scorer: _Scorer | None,
) -> None:
    """Compare boxes and scores, mAP, size and speed of a file; then its detections, as ``detlit export`` does.

    Args:
        quantized: what the file was exported from.
        detector: it before it was quantized.
        path: the file.
        boxes_path: the file, or one of the same network without suppression.
        data: validation images are looked at.
        images: batches ``(B, 3, H, W)`` for data without a validation split.
        scorer: measures the mAP.

    Raises:
        ExportError: the file is not good.
    """
    split: Any = data.dataset("val") or data.dataset("train")
    if "val" in data.splits:
        images = [batch.images for batch in islice(data.val_dataloader(), 2)]
    score = scorer.of_decoded if scorer is not None and hasattr(scorer.callback, "suppress") else None
    with tempfile.TemporaryDirectory() as folder:
        float_path = export_onnx(detector, Path(folder) / "float.onnx")
        batches = [images[0][:1], *images[:2]]  # of one and of several images
        verification = verify(quantized, boxes_path, batches, float_path=float_path, score=score)
    print(verification)
    pictures = [split.load_image(index) for index in range(min(8, len(split)))]
    comparison = compare(quantized, open_exported(path), pictures)
    print(f"\n{comparison}")
    verification.require()
    comparison.require()


def _checkpoint(detector: Detector, stored: dict[str, Any]) -> dict[str, Any]:
    """Return a checkpoint of a module around the detector, with all else as it was stored."""
    entry = stored["detlit"]
    return {
        "state_dict": {f"detector.{name}": value.cpu() for name, value in detector.state_dict().items()},
        "detlit": make_entry(
            {**entry["module"], "detector": spec_of(detector), "weights": None},
            entry["data"],
            detector.preprocessing,
            entry["class_names"],
            entry.get("score_threshold"),
        ),
        "epoch": stored.get("epoch", 0),
        "global_step": stored.get("global_step", 0),
        "pytorch-lightning_version": version("lightning"),
    }


def _data_of(ckpt_path: str, given: dict[str, str]) -> list[str]:
    """Return the data of a checkpoint as the lowest layer of arguments.

    Raises:
        ConfigurationError: neither the checkpoint nor the arguments say what the data are.
    """
    entry = read_checkpoint(ckpt_path)["detlit"]
    if given.get("allow_custom_code", "").lower() != "true":
        check_trusted(entry["data"])
    if entry["data"] is None and not any(name.split(".")[0] == "data" for name in given):
        raise ConfigurationError(f"{ckpt_path} does not say what it was trained on: give --data, such as custom_coco.")
    known = {"class_names": entry["class_names"], "preprocessing": entry["preprocessing"]}
    return ["--data", json.dumps({**as_config(entry["data"] or {}), **known})]
