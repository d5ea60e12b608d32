"""A detector that knows the answer: it tells mistakes in everything around it from mistakes of a network."""

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from detlit.models import Detector
from detlit.ops.anchors import make_anchor_points
from detlit.structures import Level, Preprocessing, RawPredictions

GREY_STEP = 20


def write_grey_images(root: Path, count: int = 10, *, empty_every: int = 3, unused_category: bool = True) -> Path:
    """Write grey images of various sizes, ``GREY_STEP`` apart, with a COCO json that also declares an unused category.

    Returns:
        The path of the json; images are beside it in ``images``.
    """
    (root / "images").mkdir(parents=True)
    images, annotations = [], []
    for index in range(count):
        height, width = 60 + 7 * index, 128 - 5 * index
        name = f"{index}.png"
        cv2.imwrite(str(root / "images" / name), np.full((height, width, 3), GREY_STEP * index, dtype=np.uint8))
        images.append({"id": 100 + index, "file_name": name, "height": height, "width": width})
        if index % empty_every == empty_every - 1:
            continue
        for category, box in ((3, [4.5, 6.25, 30.0 + index, 41.5]), (7, [40.0, 20.0, 20.5, 30.0 + index])):
            annotations.append(
                {"id": len(annotations) + 1, "image_id": 100 + index, "category_id": category, "iscrowd": 0}
                | {"bbox": box, "area": box[2] * box[3]}
            )
    categories = [{"id": 3, "name": "left"}, {"id": 7, "name": "right"}]
    if unused_category:
        categories.insert(0, {"id": 0, "name": "unused"})
    path = root / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


class Oracle(Detector):
    """Reads the grey level in the middle of each image and predicts that image's objects from the json.

    Args:
        annotations: path of the COCO json that :func:`write_grey_images` wrote.
        num_classes: number of categories declared there.
        preprocessing: how the images are letterboxed.
    """

    reg_max = 16

    def __init__(self, annotations: str, num_classes: int, preprocessing: Preprocessing | None = None) -> None:
        nn.Module.__init__(self)
        self.weight = nn.Parameter(torch.zeros(1))
        self.preprocessing = preprocessing or Preprocessing()
        self._num_classes = num_classes
        data = json.loads(Path(annotations).read_text())
        label_of = {category["id"]: label for label, category in enumerate(data["categories"])}
        self.objects: list[list[tuple[int, list[float]]]] = [[] for _ in data["images"]]
        self.sizes = [(image["height"], image["width"]) for image in data["images"]]
        for annotation in data["annotations"]:
            x, y, w, h = annotation["bbox"]
            objects = self.objects[annotation["image_id"] - 100]
            objects.append((label_of[annotation["category_id"]], [x, y, x + w, y + h]))

    @property
    def num_classes(self) -> int:
        return self._num_classes

    def set_preprocessing(self, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing

    def forward(self, images: Tensor) -> RawPredictions:
        height, width = images.shape[2:]
        levels = tuple(Level(height // stride, width // stride, stride) for stride in (8, 16, 32))
        points, strides = make_anchor_points(levels, images.device, torch.float32)
        cls_logits = torch.full((len(images), len(points), self.num_classes), -20.0)
        reg_logits = torch.full((len(images), len(points), 4, self.reg_max + 1), -40.0)
        for image, grey in enumerate(images[:, 0, height // 2, width // 2].tolist()):
            index = round(grey / GREY_STEP)
            for label, box in self._in_network_pixels(index):
                centre = points.new_tensor([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])
                anchor = int((points - centre).abs().sum(dim=1).argmin())
                cls_logits[image, anchor, label] = 8.0
                self._encode(reg_logits[image, anchor], box, points[anchor], float(strides[anchor]))
        cls_logits = cls_logits + self.weight * 0
        return RawPredictions(cls_logits, reg_logits.flatten(2), points, strides, levels)

    def _in_network_pixels(self, index: int) -> Sequence[tuple[int, list[float]]]:
        scale_x, scale_y, left, top = self.preprocessing.geometry(*self.sizes[index])
        return [
            (label, [x1 * scale_x + left, y1 * scale_y + top, x2 * scale_x + left, y2 * scale_y + top])
            for label, (x1, y1, x2, y2) in self.objects[index]
        ]

    def _encode(self, bins: Tensor, box: Sequence[float], point: Tensor, stride: float) -> None:
        """Write the logits whose expected distance is exact: two neighbouring bins share each side."""
        x, y = point.tolist()
        for side, distance in enumerate((x - box[0], y - box[1], box[2] - x, box[3] - y)):
            lower = int(distance / stride)
            fraction = distance / stride - lower
            bins[side, lower] = np.log(max(1 - fraction, 1e-12))
            bins[side, lower + 1] = np.log(max(fraction, 1e-12))
