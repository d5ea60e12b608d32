"""Detectors by name, for scripts; ``configs/model`` has a twin of each for the command line.

S, M and L are YOLO-NAS as published (https://github.com/Deci-AI/super-gradients/blob/master/YOLONAS.md), N is a smaller
sibling of our own.
"""

from functools import partial

from detlit.models.backbones import YoloNASBackbone
from detlit.models.detector import Detector
from detlit.models.heads import YoloNASHead
from detlit.models.necks import YoloNASNeck
from detlit.structures import Preprocessing

__all__ = ["yolo_nas_l", "yolo_nas_m", "yolo_nas_n", "yolo_nas_s"]


def yolo_nas_n(num_classes: int = 80, preprocessing: Preprocessing | None = None) -> Detector:
    """Return YOLO-NAS N, the smallest, not a published one: 5,842,239 parameters at 80 classes."""
    return Detector(
        backbone=YoloNASBackbone(
            stem_channels=32,
            stage_channels=[64, 128, 256, 512],
            hidden_channels=[32, 48, 64, 128],
            num_blocks=[2, 3, 4, 2],
            concat_intermediates=[False, False, False, False],
            spp_channels=512,
        ),
        neck=partial(
            YoloNASNeck,
            stage_channels=[128, 64, 128, 256],
            hidden_channels=[48, 32, 48, 48],
            num_blocks=[2, 2, 2, 2],
        ),
        head=partial(YoloNASHead, hidden_channels=[48, 88, 176], reg_max=16),
        num_classes=num_classes,
        preprocessing=preprocessing,
    )


def yolo_nas_s(num_classes: int = 80, preprocessing: Preprocessing | None = None) -> Detector:
    """Return YOLO-NAS S: 12,878,304 parameters at 80 classes."""
    return Detector(
        backbone=YoloNASBackbone(
            stem_channels=48,
            stage_channels=[96, 192, 384, 768],
            hidden_channels=[32, 64, 96, 192],
            num_blocks=[2, 3, 5, 2],
            concat_intermediates=[False, False, False, False],
            spp_channels=768,
        ),
        neck=partial(
            YoloNASNeck,
            stage_channels=[192, 96, 192, 384],
            hidden_channels=[64, 48, 64, 64],
            num_blocks=[2, 2, 2, 2],
        ),
        head=partial(YoloNASHead, hidden_channels=[64, 128, 256], reg_max=16),
        num_classes=num_classes,
        preprocessing=preprocessing,
    )


def yolo_nas_m(num_classes: int = 80, preprocessing: Preprocessing | None = None) -> Detector:
    """Return YOLO-NAS M: 33,861,346 parameters at 80 classes."""
    return Detector(
        backbone=YoloNASBackbone(
            stem_channels=48,
            stage_channels=[96, 192, 384, 768],
            hidden_channels=[64, 128, 256, 384],
            num_blocks=[2, 3, 5, 2],
            concat_intermediates=[True, True, True, False],
            spp_channels=768,
        ),
        neck=partial(
            YoloNASNeck,
            stage_channels=[192, 96, 192, 384],
            hidden_channels=[192, 64, 192, 256],
            num_blocks=[2, 3, 2, 3],
        ),
        head=partial(YoloNASHead, hidden_channels=[96, 192, 384], reg_max=16),
        num_classes=num_classes,
        preprocessing=preprocessing,
    )


def yolo_nas_l(num_classes: int = 80, preprocessing: Preprocessing | None = None) -> Detector:
    """Return YOLO-NAS L: 44,529,448 parameters at 80 classes."""
    return Detector(
        backbone=YoloNASBackbone(
            stem_channels=48,
            stage_channels=[96, 192, 384, 768],
            hidden_channels=[96, 128, 256, 512],
            num_blocks=[2, 3, 5, 2],
            concat_intermediates=[True, True, True, True],
            spp_channels=768,
        ),
        neck=partial(
            YoloNASNeck,
            stage_channels=[192, 96, 192, 384],
            hidden_channels=[128, 128, 128, 256],
            num_blocks=[4, 4, 4, 4],
        ),
        head=partial(YoloNASHead, hidden_channels=[128, 256, 512], reg_max=16),
        num_classes=num_classes,
        preprocessing=preprocessing,
    )
