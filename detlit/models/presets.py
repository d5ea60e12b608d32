"""Detectors by name, for scripts; ``configs/model`` has a twin of each for the command line.

YOLO-NAS S, M and L are as published (https://github.com/Deci-AI/super-gradients/blob/master/YOLONAS.md), N is a smaller
sibling of our own. PP-YOLOE S, M, L and X are as in https://arxiv.org/abs/2203.16250.
"""

from functools import partial

from detlit.models.backbones import CSPResNet, YoloNASBackbone
from detlit.models.detector import Detector
from detlit.models.heads import PPYoloEHead, YoloNASHead
from detlit.models.necks import PPYoloENeck, YoloNASNeck
from detlit.structures import Preprocessing

__all__ = [
    "ppyoloe_l",
    "ppyoloe_m",
    "ppyoloe_s",
    "ppyoloe_x",
    "yolo_nas_l",
    "yolo_nas_m",
    "yolo_nas_n",
    "yolo_nas_s",
]


def yolo_nas_n(num_classes: int = 80, preprocessing: Preprocessing | None = None, in_channels: int = 3) -> Detector:
    """Return YOLO-NAS N, the smallest, not a published one: 5,842,239 parameters at 80 classes."""
    return Detector(
        backbone=YoloNASBackbone(
            stem_channels=32,
            stage_channels=[64, 128, 256, 512],
            hidden_channels=[32, 48, 64, 128],
            num_blocks=[2, 3, 4, 2],
            concat_intermediates=[False, False, False, False],
            spp_channels=512,
            in_channels=in_channels,
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


def yolo_nas_s(num_classes: int = 80, preprocessing: Preprocessing | None = None, in_channels: int = 3) -> Detector:
    """Return YOLO-NAS S: 12,878,304 parameters at 80 classes."""
    return Detector(
        backbone=YoloNASBackbone(
            stem_channels=48,
            stage_channels=[96, 192, 384, 768],
            hidden_channels=[32, 64, 96, 192],
            num_blocks=[2, 3, 5, 2],
            concat_intermediates=[False, False, False, False],
            spp_channels=768,
            in_channels=in_channels,
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


def yolo_nas_m(num_classes: int = 80, preprocessing: Preprocessing | None = None, in_channels: int = 3) -> Detector:
    """Return YOLO-NAS M: 33,861,346 parameters at 80 classes."""
    return Detector(
        backbone=YoloNASBackbone(
            stem_channels=48,
            stage_channels=[96, 192, 384, 768],
            hidden_channels=[64, 128, 256, 384],
            num_blocks=[2, 3, 5, 2],
            concat_intermediates=[True, True, True, False],
            spp_channels=768,
            in_channels=in_channels,
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


def yolo_nas_l(num_classes: int = 80, preprocessing: Preprocessing | None = None, in_channels: int = 3) -> Detector:
    """Return YOLO-NAS L: 44,529,448 parameters at 80 classes."""
    return Detector(
        backbone=YoloNASBackbone(
            stem_channels=48,
            stage_channels=[96, 192, 384, 768],
            hidden_channels=[96, 128, 256, 512],
            num_blocks=[2, 3, 5, 2],
            concat_intermediates=[True, True, True, True],
            spp_channels=768,
            in_channels=in_channels,
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


def ppyoloe_s(num_classes: int = 80, preprocessing: Preprocessing | None = None, in_channels: int = 3) -> Detector:
    """Return PP-YOLOE S: 8,084,588 parameters at 80 classes."""
    return _ppyoloe(0.33, 0.50, num_classes, preprocessing, in_channels)


def ppyoloe_m(num_classes: int = 80, preprocessing: Preprocessing | None = None, in_channels: int = 3) -> Detector:
    """Return PP-YOLOE M: 24,134,892 parameters at 80 classes."""
    return _ppyoloe(0.67, 0.75, num_classes, preprocessing, in_channels)


def ppyoloe_l(num_classes: int = 80, preprocessing: Preprocessing | None = None, in_channels: int = 3) -> Detector:
    """Return PP-YOLOE L: 54,078,556 parameters at 80 classes."""
    return _ppyoloe(1.00, 1.00, num_classes, preprocessing, in_channels)


def ppyoloe_x(num_classes: int = 80, preprocessing: Preprocessing | None = None, in_channels: int = 3) -> Detector:
    """Return PP-YOLOE X: 102,331,484 parameters at 80 classes."""
    return _ppyoloe(1.33, 1.25, num_classes, preprocessing, in_channels)


def _ppyoloe(
    depth: float, width: float, num_classes: int, preprocessing: Preprocessing | None, in_channels: int
) -> Detector:
    """Return PP-YOLOE L with ``depth`` times the bottlenecks and ``width`` times the channels."""

    def blocks(number: int) -> int:
        return max(round(number * depth), 1)

    def channels(number: int) -> int:
        return round(number * width)

    return Detector(
        backbone=CSPResNet(
            stem_channels=channels(64),
            stage_channels=[channels(number) for number in (128, 256, 512, 1024)],
            num_blocks=[blocks(number) for number in (3, 6, 6, 3)],
            in_channels=in_channels,
        ),
        neck=partial(
            PPYoloENeck,
            stage_channels=[channels(number) for number in (768, 384, 192)],
            num_blocks=blocks(3),
        ),
        head=partial(PPYoloEHead, reg_max=16),
        num_classes=num_classes,
        preprocessing=preprocessing,
    )
