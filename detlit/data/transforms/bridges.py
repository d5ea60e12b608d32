"""Transforms of albumentations and torchvision on detlit's samples."""

import importlib
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from detlit.data.sample import Sample, clip_boxes
from detlit.data.transforms.base import SampleTransform
from detlit.errors import ConfigurationError

__all__ = ["Albumentations", "TorchVision"]


class Albumentations(SampleTransform):
    """Apply transforms of albumentations 2 (https://albumentations.ai) to the network input and its boxes.

    Everything random follows from the sample's own generator: albumentations' own state would repeat in every worker
    and every epoch. An image that comes back in another size is letterboxed again.

    Args:
        transforms: an ``albumentations.Compose``, of whose ``bbox_params`` the thresholds are kept, or a list of
            transforms; in YAML a list of ``{class_path: albumentations.Blur, init_args: {p: 0.1}}``.

    Raises:
        ConfigurationError: what is given is no transform of albumentations.
    """

    def __init__(self, transforms: list[dict[str, Any]] | Any) -> None:
        import albumentations

        built = _build(transforms)
        thresholds = {}
        if isinstance(built, albumentations.Compose):
            own = built.processors.get("bboxes")
            names = ("min_area", "min_visibility", "min_width", "min_height", "max_accept_ratio")
            thresholds = {name: getattr(own.params, name) for name in names} if own is not None else {}
            built = built.transforms
        built = list(built) if isinstance(built, (list, tuple)) else [built]
        for transform in built:
            if not isinstance(transform, (albumentations.BasicTransform, albumentations.BaseCompose)):
                raise ConfigurationError(
                    f"{type(transform).__name__} is no transform of albumentations: give a Compose or a list of "
                    "transforms such as {class_path: albumentations.Blur}."
                )
        boxes = albumentations.BboxParams("pascal_voc", label_fields=["rows"], **thresholds)
        self.compose = albumentations.Compose(built, bbox_params=boxes)

    def __call__(self, sample: Sample, generator: np.random.Generator, pad_value: int) -> Sample:
        """Return the changed sample."""
        self.compose.set_random_state(generator, random.Random(int(generator.integers(2**63))))
        rows = np.arange(len(sample.boxes))
        result = self.compose(image=sample.image, bboxes=sample.boxes, rows=rows)
        return _changed(
            sample, result["image"], np.asarray(result["bboxes"], dtype=np.float64), np.asarray(result["rows"])
        )


class TorchVision(SampleTransform):
    """Apply a pipeline of ``torchvision.transforms.v2`` to the network input and its boxes.

    Images arrive as uint8; ones that come back as floats in [0, 1] are turned back, and ones of another size are
    letterboxed again. Everything random follows from the sample's own generator.

    Args:
        transforms: a transform or a list of them; in YAML a list of
            ``{class_path: torchvision.transforms.v2.ColorJitter, init_args: {hue: 0.1}}``.

    Raises:
        ConfigurationError: what is given cannot be applied.
    """

    def __init__(self, transforms: list[dict[str, Any]] | Any) -> None:
        from torchvision.transforms import v2

        built = _build(transforms)
        built = list(built) if isinstance(built, (list, tuple)) else [built]
        for transform in built:
            if not callable(transform):
                raise ConfigurationError(
                    f"{transform!r} is no transform of torchvision: give one, or a list of transforms such as "
                    "{class_path: torchvision.transforms.v2.ColorJitter}."
                )
        self.compose = v2.Compose(built)

    def __call__(self, sample: Sample, generator: np.random.Generator, pad_value: int) -> Sample:
        """Return the changed sample."""
        from torchvision import tv_tensors
        from torchvision.transforms import v2

        inputs = {
            "image": tv_tensors.Image(torch.from_numpy(sample.image).permute(2, 0, 1)),
            "boxes": tv_tensors.BoundingBoxes(
                torch.from_numpy(sample.boxes), format="XYXY", canvas_size=sample.image.shape[:2]
            ),
            "labels": torch.arange(
                len(sample.boxes)
            ),  # the rows that are left; the name lets SanitizeBoundingBoxes work
        }
        state = torch.get_rng_state()
        torch.default_generator.manual_seed(int(generator.integers(2**63)))
        try:
            result = self.compose(inputs)
        finally:
            torch.set_rng_state(state)
        image = v2.functional.to_dtype(result["image"], torch.uint8, scale=True)
        return _changed(
            sample,
            np.ascontiguousarray(image.permute(1, 2, 0).numpy()),
            result["boxes"].numpy().astype(np.float64).reshape(-1, 4),
            result["labels"].numpy(),
        )


def _changed(sample: Sample, image: NDArray[np.uint8], boxes: NDArray[np.float64], rows: NDArray[Any]) -> Sample:
    """Return the sample with another image and those of its objects, in ``rows``, that are left."""
    height, width = image.shape[:2]
    boxes, rows = clip_boxes(boxes.reshape(-1, 4)[:, :4], height, width), rows.astype(np.int64)
    kept = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    rows = rows[kept]
    return replace(
        sample,
        image=image,
        boxes=boxes[kept],
        labels=sample.labels[rows],
        iscrowd=sample.iscrowd[rows],
        orig_size=(height, width),
        geometry=(1.0, 1.0, 0.0, 0.0),
        originals=None,
    )


def _build(spec: Any) -> Any:
    """Return the object that a spec with ``class_path`` describes, specs among its arguments included."""
    if isinstance(spec, Sequence) and not isinstance(spec, str):
        return [_build(item) for item in spec]
    if not isinstance(spec, dict) or "class_path" not in spec:
        return spec
    module, _, name = spec["class_path"].rpartition(".")
    try:
        factory = getattr(importlib.import_module(module), name)
        return factory(**{key: _build(value) for key, value in spec.get("init_args", {}).items()})
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ConfigurationError(f"the augmentation {spec['class_path']} cannot be made: {error}.") from error
