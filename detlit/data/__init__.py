"""Data sets, transforms, and the batches made of them. Names are imported when first used: only one needs Lightning."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOME_OF = {
    "AnnotatedDataset": "detlit.data.datasets",
    "CocoDataset": "detlit.data.datasets",
    "ConcatDataset": "detlit.data.datasets",
    "DetectionDataModule": "detlit.data.datamodule",
    "DetectionDataset": "detlit.data.datasets",
    "DetectionSampler": "detlit.data.sampler",
    "GroundTruth": "detlit.data.datasets",
    "HuggingFaceDataset": "detlit.data.datasets",
    "ListDataset": "detlit.data.datasets",
    "ResumableLoader": "detlit.data.loader",
    "Sample": "detlit.data.sample",
    "SampleIndex": "detlit.data.sampler",
    "ShapesDataset": "detlit.data.datasets",
    "VocDataset": "detlit.data.datasets",
    "YoloDataset": "detlit.data.datasets",
    "collate": "detlit.data.collation",
    "guess_datasets": "detlit.data.datasets",
    "image_size": "detlit.data.images",
    "read_image": "detlit.data.images",
}

__all__ = [
    "AnnotatedDataset",
    "CocoDataset",
    "ConcatDataset",
    "DetectionDataModule",
    "DetectionDataset",
    "DetectionSampler",
    "GroundTruth",
    "HuggingFaceDataset",
    "ListDataset",
    "ResumableLoader",
    "Sample",
    "SampleIndex",
    "ShapesDataset",
    "VocDataset",
    "YoloDataset",
    "collate",
    "guess_datasets",
    "image_size",
    "read_image",
]

if TYPE_CHECKING:
    from detlit.data.collation import collate
    from detlit.data.datamodule import DetectionDataModule
    from detlit.data.datasets import (
        AnnotatedDataset,
        CocoDataset,
        ConcatDataset,
        DetectionDataset,
        GroundTruth,
        HuggingFaceDataset,
        ListDataset,
        ShapesDataset,
        VocDataset,
        YoloDataset,
        guess_datasets,
    )
    from detlit.data.images import image_size, read_image
    from detlit.data.loader import ResumableLoader
    from detlit.data.sample import Sample
    from detlit.data.sampler import DetectionSampler, SampleIndex


def __getattr__(name: str) -> Any:
    """Import a public name from its home (PEP 562)."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'detlit.data' has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
