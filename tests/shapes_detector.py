"""The small trained detector in tests/assets, and the images it was trained for."""

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detlit.cli.scoring import mean_average_precision
from detlit.data import DetectionDataModule, ShapesDataset
from detlit.models import Detector
from detlit.models.checkpoint_entry import detector_from_checkpoint, read_checkpoint
from detlit.postprocess import NMSPostPredictionCallback
from detlit.quantization import calibration_batches

CHECKPOINT = Path(__file__).parent / "assets" / "shapes_detector.ckpt"


def shapes_detector() -> Detector:
    """Return the trained detector, in evaluation mode: 664,335 parameters, 6 classes, 128 pixels."""
    return detector_from_checkpoint(read_checkpoint(CHECKPOINT)).eval()


def shapes_data(train: int = 64, val: int = 100, **arguments: Any) -> DetectionDataModule:
    """Return a data module of images like those it was trained on, seen (train) and not seen (val)."""
    defaults = {"image_size": 128, "batch_size": 8, "num_workers": 0, "augmentations": []}
    return DetectionDataModule(
        ShapesDataset(train, image_size=128, seed=0),
        ShapesDataset(val, image_size=128, seed=1),
        **{**defaults, **arguments},
    )


@cache
def calibration_images(num_batches: int = 4) -> tuple[Tensor, ...]:
    """Return batches ``(8, 3, 128, 128)`` of training images."""
    images, detector = ShapesDataset(256, image_size=128, seed=0), shapes_detector()
    return tuple(calibration_batches(images, detector.preprocessing, num_batches=num_batches, batch_size=8))


@cache
def validation_batches(val: int = 100) -> tuple[Any, ...]:
    return tuple(shapes_data(val=val).val_dataloader())


def map_of(detector: Detector, val: int = 100) -> float:
    """Return the mAP of a detector on images it has not seen."""
    callback = NMSPostPredictionCallback()
    with torch.no_grad():
        return mean_average_precision(lambda images: callback(detector(images)), validation_batches(val))


def map_of_decoded(predict: Any, val: int = 100) -> float:
    """Return the mAP of what computes boxes and scores."""
    callback = NMSPostPredictionCallback()
    return mean_average_precision(
        lambda images: callback.suppress(*predict(images), (128, 128)), validation_batches(val)
    )
