"""Non-maximum suppression in the exported graph, with any number of images and of any size."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from detlit.errors import ConfigurationError
from detlit.postprocess import NMSPostPredictionCallback, PostPredictionCallback
from detlit.postprocess.stored import stored_callback

__all__ = [
    "NMSFormat",
    "SuppressedDetector",
    "Suppression",
    "output_names",
    "stored_suppression",
    "translation_table",
]

NMSFormat = Literal["none", "flat", "batch"]
"""What the graph gives: boxes and scores of all anchor points; rows of detections; detections padded per image."""


@dataclass(frozen=True)
class Suppression:
    """The settings of :class:`~detlit.postprocess.NMSPostPredictionCallback`, as an exported file keeps them."""

    score_threshold: float = 0.25
    nms_threshold: float = 0.7
    nms_top_k: int = 1000
    max_predictions: int = 300
    multi_label_per_box: bool = True
    class_agnostic_nms: bool = False
    clip: bool = False

    @classmethod
    def of(cls, callback: PostPredictionCallback, score_threshold: float) -> "Suppression":
        """Return the settings of a callback, with another score threshold.

        Raises:
            ConfigurationError: the callback is another one.
        """
        if not isinstance(callback, NMSPostPredictionCallback):
            raise ConfigurationError(
                f"{type(callback).__name__} cannot be put into an exported file, only NMSPostPredictionCallback can: "
                "export with --nms none and apply it to the boxes and scores."
            )
        names = [name for name in cls.__dataclass_fields__ if name != "score_threshold"]
        return cls(score_threshold=score_threshold, **{name: getattr(callback, name) for name in names})

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as stored in exported files."""
        return asdict(self)


def stored_suppression(
    entry: Mapping[str, Any],
    nms: NMSFormat,
    *,
    allow_custom_code: bool = False,
    score_threshold: float | None = None,
    **changes: float | None,
) -> Suppression:
    """Return the suppression of a checkpoint, as files exported from it hold or note it.

    Args:
        entry: the checkpoint's ``"detlit"`` entry.
        nms: of the file; with ``"none"`` another callback than
            :class:`~detlit.postprocess.NMSPostPredictionCallback` gives way to that one with its defaults.
        allow_custom_code: also build a callback from outside detlit and torch.
        score_threshold: least score of a detection; ``None`` takes the checkpoint's, that of its best F1, or 0.25.
        **changes: other settings to use in place of the stored ones; ``None`` keeps those.

    Raises:
        ConfigurationError: a callback that cannot be in the file, or a setting that is no threshold or number.
    """
    callback = stored_callback(entry, allow_custom_code=allow_custom_code)
    if score_threshold is None:
        score_threshold = entry.get("score_threshold", 0.25)
    if not isinstance(callback, NMSPostPredictionCallback) and nms == "none":
        callback = NMSPostPredictionCallback()
    settings = Suppression.of(callback, score_threshold).to_dict()
    settings |= {name: value for name, value in changes.items() if value is not None}
    NMSPostPredictionCallback(**settings)  # refuses what is no threshold or number
    return Suppression(**settings)


def output_names(nms: NMSFormat) -> list[str]:
    """Return the names of an exported graph's outputs."""
    return {
        "none": ["boxes", "scores"],
        "flat": ["detections"],
        "batch": ["num_detections", "boxes", "scores", "labels"],
    }[nms]


class SuppressedDetector(nn.Module):
    """What gives boxes and scores, followed by the suppression; the same detections as in training and prediction.

    Args:
        decoded: gives ``boxes (B, A, 4)`` and ``scores (B, A, C)``.
        suppression: the settings.
        nms: ``"flat"`` or ``"batch"``.
    """

    def __init__(self, decoded: nn.Module, suppression: Suppression, nms: NMSFormat) -> None:
        super().__init__()
        self.decoded = decoded
        self.suppression = suppression
        self.nms = nms

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the detections of each image, best first.

        Args:
            images: ``(B, in_channels, H, W)``.

        Returns:
            For ``"flat"`` ``detections (N, 7)`` float32, ``N`` those of all images: index of the image, x1, y1, x2, y2,
            score, label. For ``"batch"`` ``num_detections (B, 1)`` int64, ``boxes (B, K, 4)``, ``scores (B, K)``
            and ``labels (B, K)`` int64, ``K = max_predictions``; what is beyond the number is -1.
        """
        settings = self.suppression
        boxes, scores, labels = self._candidates(*self.decoded(images))
        kept = self._kept(boxes, scores, labels, images.shape[0])
        # Candidates are ranked, so those that stay are taken in their order.
        count = min(settings.max_predictions, settings.nms_top_k)
        ranks = torch.arange(settings.nms_top_k, 0, -1, device=kept.device)
        order = (kept * ranks).topk(count, dim=1)
        found = order.values > 0
        boxes = boxes.gather(1, order.indices[..., None].expand(-1, -1, 4))
        if settings.clip:
            height, width = images.shape[2], images.shape[3]
            boxes = torch.stack(
                [boxes[..., side].clamp(min=0).clamp(max=limit) for side, limit in enumerate((width, height) * 2)], -1
            )
        scores, labels = scores.gather(1, order.indices), labels.gather(1, order.indices)
        if self.nms == "flat":
            index = torch.arange(images.shape[0], device=boxes.device)[:, None].expand(-1, count)
            columns = [index[..., None].float(), boxes, scores[..., None], labels[..., None].float()]
            return (torch.cat(columns, dim=-1)[found],)
        nothing = ~found
        return (
            found.sum(1, keepdim=True),
            boxes.masked_fill(nothing[..., None], -1.0),
            scores.masked_fill(nothing, -1.0),
            labels.masked_fill(nothing, -1),
        )

    def _candidates(self, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``boxes (B, K, 4)``, ``scores (B, K)`` and ``labels (B, K)`` of the best candidates, best first."""
        settings, classes = self.suppression, scores.shape[2]
        if settings.multi_label_per_box:
            every, label = scores.flatten(1), None
        else:
            every, label = scores.max(dim=2)
        # A small image may have fewer candidates than are asked for.
        every = torch.cat([every, every.new_zeros(1, settings.nms_top_k).expand(every.shape[0], -1)], dim=1)
        best, indices = every.topk(settings.nms_top_k, dim=1)
        last = boxes.shape[1] - 1
        if label is None:
            anchors, labels = (indices // classes).clamp(max=last), indices % classes
        else:
            anchors = indices.clamp(max=last)
            labels = label.gather(1, anchors)
        return boxes.gather(1, anchors[..., None].expand(-1, -1, 4)), best, labels

    def _kept(self, boxes: Tensor, scores: Tensor, labels: Tensor, batch: int) -> Tensor:
        """Return which candidates stay, ``(B, K)`` of 0 and 1; each class competes in a plane of its own."""
        settings = self.suppression
        planes = scores[:, None]
        if not settings.class_agnostic_nms:
            label = torch.arange(self.num_classes, device=labels.device)[None, :, None]
            planes = planes * (labels[:, None] == label)
        chosen = torch.ops.detlit.nms(
            boxes, planes, settings.nms_top_k, settings.nms_threshold, settings.score_threshold
        )
        nothing = torch.zeros_like(labels)
        return nothing.index_put((chosen[:, 0], chosen[:, 2]), torch.ones_like(chosen[:, 0]))

    @property
    def num_classes(self) -> int:
        """Number of classes of the detector."""
        count: int = self.decoded.detector.num_classes  # type: ignore[assignment, union-attr]
        return count


@torch.library.custom_op("detlit::nms", mutates_args=())
def _nms(boxes: Tensor, scores: Tensor, max_per_class: int, iou_threshold: float, score_threshold: float) -> Tensor:
    """Return rows (image, plane, box) of what stays, as ONNX's NonMaxSuppression does.

    https://onnx.ai/onnx/operators/onnx__NonMaxSuppression.html

    Args:
        boxes: ``(B, K, 4)`` xyxy.
        scores: ``(B, P, K)``; only those above ``score_threshold`` take part.
        max_per_class: at most that many stay in a plane.
        iou_threshold: of two boxes with a larger IoU the better one stays.
        score_threshold: see above.
    """
    from torchvision.ops import nms

    rows = []
    for image, planes in enumerate(scores):
        for plane, values in enumerate(planes):
            some = (values > score_threshold).nonzero()[:, 0]
            stay = some[nms(boxes[image][some], values[some], iou_threshold)][:max_per_class]
            rows.append(torch.stack([torch.full_like(stay, image), torch.full_like(stay, plane), stay], dim=1))
    return torch.cat(rows)


@_nms.register_fake
def _(boxes: Tensor, scores: Tensor, max_per_class: int, iou_threshold: float, score_threshold: float) -> Tensor:
    return boxes.new_empty((torch.library.get_ctx().new_dynamic_size(), 3), dtype=torch.int64)


def translation_table() -> dict[Any, Any]:
    """Return how the exporter writes the suppression: as ONNX's own operator."""
    from onnxscript import opset18

    op: Any = opset18

    def to_onnx(boxes: Any, scores: Any, max_per_class: int, iou_threshold: float, score_threshold: float) -> Any:
        return op.NonMaxSuppression(
            boxes,
            scores,
            op.Constant(value_ints=[max_per_class]),
            op.Constant(value_floats=[iou_threshold]),
            op.Constant(value_floats=[score_threshold]),
        )

    return {torch.ops.detlit.nms.default: to_onnx}
