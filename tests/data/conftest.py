"""Small COCO data sets on disk."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest

from tests.golden_recipe import image_u8

CocoWriter = Callable[..., Path]

CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 2, "name": "cat"}, {"id": 5, "name": "owl"}]


def annotation(key: int, image_id: int, category_id: int, bbox: Any, **extra: Any) -> dict[str, Any]:
    return {"id": key, "image_id": image_id, "category_id": category_id, "bbox": bbox, **extra}


def three_images() -> dict[str, Any]:
    """Annotations of images 30, 10 and 20 of 40x30, 50x30 and 60x30 pixels; the second has none."""
    return {
        "images": [
            {"id": key, "file_name": f"{key}.png", "width": width, "height": 30}
            for key, width in ((30, 40), (10, 50), (20, 60))
        ],
        "annotations": [
            annotation(1, 20, 7, [1, 2, 10, 20], area=150.5, iscrowd=1),
            annotation(2, 30, 2, [0.5, 0.25, 3.25, 8], iscrowd=0),
            annotation(3, 20, 2, [5, 5, 5, 5]),
        ],
        "categories": CATEGORIES,
    }


@pytest.fixture
def write_coco(tmp_path: Path) -> CocoWriter:
    """Write ``train.json`` (or another name) and its images in ``images/train``; return the root."""

    def write(content: Any | None = None, name: str = "train", folder: str | None = None) -> Path:
        content = three_images() if content is None else content
        (tmp_path / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
        for image in content.get("images", []) if isinstance(content, dict) else []:
            file = tmp_path / (folder or f"images/{name}") / (image.get("file_name") or "unnamed.png")
            file.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(file), image_u8(image.get("height", 30), image.get("width", 40)))
        return tmp_path

    return write
