"""The checkpoint that SuperGradients' Trainer wrote, and the detector it was written of."""

from functools import partial
from pathlib import Path

from detlit.models import Detector
from detlit.models.backbones import YoloNASBackbone
from detlit.models.heads import YoloNASHead
from detlit.models.necks import YoloNASNeck

CHECKPOINT = Path(__file__).parent / "golden" / "tiny_yolo_nas_ckpt_best.pth"
FORWARD = CHECKPOINT.with_name("tiny_forward.npz")


def golden_detector(num_classes: int = 3) -> Detector:
    """Return a YOLO-NAS of 20,245 parameters at 3 classes: SuperGradients counts 26,901 with its placeholders."""
    return Detector(
        backbone=YoloNASBackbone(
            stem_channels=8,
            stage_channels=[8, 8, 16, 16],
            hidden_channels=[4, 4, 4, 4],
            num_blocks=[1, 1, 1, 1],
            concat_intermediates=[False] * 4,
            spp_channels=16,
        ),
        neck=partial(YoloNASNeck, stage_channels=[8, 8, 8, 16], hidden_channels=[4] * 4, num_blocks=[1] * 4),
        head=partial(YoloNASHead, hidden_channels=[8, 8, 8]),
        num_classes=num_classes,
    )
