"""What SuperGradients keeps beside its published weights instead of in the files: classes, input and thresholds."""

from collections.abc import Iterable
from dataclasses import dataclass

from detlit.structures import Preprocessing

__all__ = ["COCO_CLASSES", "Published", "published_with"]


@dataclass(frozen=True)
class Published:
    """How the published weights of a family were trained and are used.

    Attributes:
        family: what the models are called.
        preprocessing: how images become input.
        score_threshold: least score of a detection that is shown.
        nms_threshold: of two boxes with a larger IoU the better one stays.
    """

    family: str
    preprocessing: Preprocessing
    score_threshold: float
    nms_threshold: float


YOLO_NAS = Published("YOLO-NAS", Preprocessing(content_size=(636, 636)), score_threshold=0.25, nms_threshold=0.7)
PPYOLOE = Published(
    "PP-YOLOE",
    # The mean and std of ImageNet's red, green, blue on blue, green, red: so the weights were trained.
    Preprocessing(keep_ratio=False, channel_order="BGR", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    score_threshold=0.5,
    nms_threshold=0.65,
)
COCO_CLASSES = tuple(
    """person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign,
    parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella,
    handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard,
    surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange,
    broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop,
    mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors,
    teddy bear, hair drier, toothbrush""".replace("\n    ", " ").split(", ")
)


def published_with(names: Iterable[str]) -> Published | None:
    """Return the family whose state dicts have such names, in SuperGradients' spelling; ``None`` for no family."""
    for name in names:
        if "neck.neck1." in name:
            return YOLO_NAS
        if "neck.fpn_stages." in name:
            return PPYOLOE
    return None
