"""A detector small enough for unit tests, with the structure of the real ones."""

from functools import partial

from detlit.models import Detector
from detlit.models.backbones import YoloNASBackbone
from detlit.models.heads import YoloNASHead
from detlit.models.necks import YoloNASNeck


def tiny_detector(num_classes: int = 3, in_channels: int = 3) -> Detector:
    """Return a YOLO-NAS of about 50,000 parameters."""
    return Detector(
        backbone=YoloNASBackbone(
            stem_channels=8,
            stage_channels=[8, 16, 24, 32],
            hidden_channels=[8, 8, 8, 8],
            num_blocks=[1, 1, 1, 1],
            concat_intermediates=[False] * 4,
            spp_channels=32,
            in_channels=in_channels,
        ),
        neck=partial(YoloNASNeck, stage_channels=[16, 8, 16, 24], hidden_channels=[8] * 4, num_blocks=[1] * 4),
        head=partial(YoloNASHead, hidden_channels=[8, 8, 8], reg_max=16),
        num_classes=num_classes,
    )
