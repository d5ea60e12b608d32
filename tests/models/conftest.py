from functools import partial

import pytest
import torch

from detlit.models import Detector
from detlit.models.backbones import YoloNASBackbone
from detlit.models.heads import YoloNASHead
from detlit.models.necks import YoloNASNeck


@pytest.fixture
def tiny_detector() -> Detector:
    """YOLO-NAS with 2 classes and a few thousand parameters."""
    torch.manual_seed(0)
    backbone = YoloNASBackbone(
        stem_channels=4,
        stage_channels=[8, 8, 16, 16],
        hidden_channels=[4, 4, 4, 4],
        num_blocks=[1, 1, 1, 1],
        concat_intermediates=[True, False, False, False],
        spp_channels=16,
    )
    neck = partial(YoloNASNeck, stage_channels=[8, 8, 8, 16], hidden_channels=[4, 4, 4, 4], num_blocks=[1, 1, 1, 1])
    return Detector(backbone, neck, partial(YoloNASHead, hidden_channels=[8, 8, 8], reg_max=16), num_classes=2)
