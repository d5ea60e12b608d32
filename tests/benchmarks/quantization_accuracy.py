"""The mAP of a detector in floating point, quantized after training, and fine-tuned with QuantizationAwareTraining.

Run: python tests/benchmarks/quantization_accuracy.py --ckpt_path best.ckpt --trained qat/best.ckpt. The validation
split that the first names is scored, in torch and in the runtimes of the exported files. Calibration takes 16 batches
of 8 training images. Differences of boxes are over those that score above 0.3.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detlit.cli.scoring import mean_average_precision
from detlit.export import DecodedDetector, Verification, export_onnx, verify
from detlit.models import Detector
from detlit.models.checkpoint_entry import detector_from_checkpoint, read_checkpoint
from detlit.postprocess import NMSPostPredictionCallback
from detlit.quantization import Quantization, calibration_batches, quantize
from detlit.spec import build


class Scene:
    """The validation split of a checkpoint, and how its detections are scored."""

    def __init__(self, stored: dict[str, Any]) -> None:
        entry = stored["detlit"]
        self.data = build({"class_path": "detlit.data.DetectionDataModule", "init_args": entry["data"]})
        self.callback = build(entry["module"]["post_prediction_callback"]) or NMSPostPredictionCallback()

    def score(self, predict: Any) -> float:
        """Return the mAP of what computes boxes and scores."""
        return mean_average_precision(
            lambda images: self.callback.suppress(*predict(images), tuple(images.shape[2:])),
            self.data.val_dataloader(),
        )

    def images(self) -> list[Tensor]:
        """Return the images of two batches."""
        loader = iter(self.data.val_dataloader())
        return [next(loader).images for _ in range(2)]


def quantized_after_training(detector: Detector, quantization: Quantization, scene: Scene) -> Detector:
    images = calibration_batches(
        scene.data.dataset("train"), detector.preprocessing, num_batches=16, batch_size=8, seed=scene.data.seed
    )
    return quantize(detector, list(images), quantization).detector


def verified(detector: Detector, float_file: Path, folder: Path, scene: Scene) -> Verification:
    file = export_onnx(detector, folder / "int8.onnx")
    return verify(detector, file, scene.images(), float_path=float_file, score=scene.score)


def main() -> None:
    """Measure, and print the tables and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ckpt_path", required=True, help="the detector in floating point")
    parser.add_argument("--trained", required=True, help="the one fine-tuned with QuantizationAwareTraining")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    stored = read_checkpoint(arguments.ckpt_path)
    scene, detector = Scene(stored), detector_from_checkpoint(stored).eval()
    trained = detector_from_checkpoint(read_checkpoint(arguments.trained)).eval()
    after = quantized_after_training(detector, trained.quantization, scene)  # type: ignore[arg-type]
    results: dict[str, Any] = {"float": round(scene.score(DecodedDetector(detector)), 4)}
    print(f"floating point in torch: mAP {results['float']:.4f}")
    with tempfile.TemporaryDirectory() as folder:
        float_file = export_onnx(detector, Path(folder) / "float.onnx")
        for name, quantized in (("after training", after), ("fine-tuned", trained)):
            done = verified(quantized, float_file, Path(folder), scene)
            print(f"\nquantized {name}\n{done}")
            runtimes = {parity.runtime: parity.score for parity in done.parities}
            results[name] = {name: round(score or 0.0, 4) for name, score in {"torch": done.score, **runtimes}.items()}
    print(json.dumps({**vars(arguments), "torch": torch.__version__, "mAP": results}))


if __name__ == "__main__":
    main()
