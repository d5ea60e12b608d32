"""A sound data set in COCO's format, to plant faults in."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from detlit.data.check import Checkup, check_data
from detlit.data.check.coco import collect_coco

Content = dict[str, Any]

CLASSES = ("cat", "dog", "owl")
HEIGHT, WIDTH = 120, 160


def picture(seed: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return random clouds: no two look alike, and recompression keeps their looks."""
    cells = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.uint8)


class Scene:
    """Three splits of images with four boxes each, in memory until :meth:`check` writes them."""

    def __init__(self, root: Path, images: dict[str, int] | None = None) -> None:
        self.root = root
        self.content: dict[str, Content] = {}
        generator = np.random.default_rng(0)
        seed = 0
        for split, count in (images or {"train": 8, "val": 4, "test": 4}).items():
            folder = root / "images" / split
            folder.mkdir(parents=True)
            content: Content = {
                "images": [],
                "annotations": [],
                "categories": [{"id": key, "name": name} for key, name in enumerate(CLASSES, 1)],
            }
            for number in range(1, count + 1):
                seed += 1
                cv2.imwrite(str(folder / f"{number}.png"), picture(seed))
                content["images"].append({"id": number, "file_name": f"{number}.png", "width": WIDTH, "height": HEIGHT})
                for position in range(4):
                    width, height = generator.integers(25, 40, 2).tolist()
                    x, y = 5 + 75 * (position % 2), 5 + 55 * (position // 2)
                    content["annotations"].append(
                        {
                            "id": len(content["annotations"]) + 1,
                            "image_id": number,
                            "category_id": 1 + (number + position) % 3,
                            "bbox": [x + 0.5, y + 0.25, float(width), float(height)],
                            "area": float(width * height),
                            "iscrowd": 0,
                        }
                    )
            self.content[split] = content

    def file(self, split: str, number: int) -> Path:
        return self.root / "images" / split / f"{number}.png"

    def box(self, split: str, number: int) -> list[Any]:
        """Return the box of annotation ``number``, to be changed in place."""
        box: list[Any] = self.content[split]["annotations"][number - 1]["bbox"]
        return box

    def write(self) -> None:
        (self.root / "annotations").mkdir(exist_ok=True)
        for split, content in self.content.items():
            (self.root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))

    def check(self, **options: Any) -> Checkup:
        self.write()
        splits = [
            collect_coco(name, self.root / f"annotations/instances_{name}.json", self.root / "images" / name)
            for name in self.content
        ]
        return check_data(splits, **options)


def found(checkup: Checkup) -> dict[str, list[str]]:
    """Return the places of each kind of fault."""
    return {finding.code: finding.places for finding in checkup.findings}
