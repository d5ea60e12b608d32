"""Real photographs and annotations; DETLIT_TEST_DATA names the folder that holds bccd/ and coco_tiny/."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from detlit.data import CocoDataset, DetectionDataModule
from detlit.structures import Batch


def bccd(folder: Path, split: str) -> CocoDataset:
    return CocoDataset(f"annotations/instances_{split}.json", f"images/{split}", root=str(folder / "bccd"))


@pytest.mark.parametrize(("split", "images", "boxes"), [("train", 205, 2805), ("val", 87, 1138), ("test", 72, 945)])
@pytest.mark.filterwarnings("ignore:.*without area")
def test_bccd_is_read_whole(data_folder: Path, split: str, images: int, boxes: int) -> None:
    data = bccd(data_folder, split)
    targets = [data.load_target(index) for index in range(len(data))]
    assert (len(data), tuple(data.class_names)) == (images, ("RBC", "WBC", "Platelets"))
    assert sum(len(np.asarray(target["labels"])) for target in targets) == boxes


def test_the_box_without_area_is_evaluated_only(data_folder: Path) -> None:
    data = bccd(data_folder, "val")
    with pytest.warns(UserWarning, match=r"1 box without area .*\(annotation 887\)"):
        data.setup()
    samples = [data.load_sample(index) for index in range(len(data))]
    originals = sum(len(sample.originals.boxes) for sample in samples if sample.originals)
    assert (originals, sum(len(sample.boxes) for sample in samples)) == (1138, 1137)


@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_coco_annotations_arrive_as_they_are_in_the_file(data_folder: Path, split: str) -> None:
    root = data_folder / "coco_tiny"
    data = DetectionDataModule(
        val=CocoDataset(f"annotations/instances_{split}.json", split), root=str(root), image_size=320, num_workers=0
    )
    content = json.loads((root / f"annotations/instances_{split}.json").read_text())
    names = {row["id"]: row["name"] for row in content["categories"]}
    assert data.num_classes == 80
    expected = sorted(
        (row["image_id"], names[row["category_id"]], row["iscrowd"], row["area"], *row["bbox"])
        for row in content["annotations"]
    )
    found = []
    for batch in data.val_dataloader():
        assert isinstance(batch, Batch)
        for target in batch.targets:
            boxes = target["orig_boxes"]
            for label, crowd, area, box in zip(
                target["orig_labels"], target["orig_iscrowd"], target["orig_area"], boxes, strict=True
            ):
                x1, y1, x2, y2 = box.tolist()
                name = data.class_names[int(label)]
                found.append((target["image_id"], name, int(crowd), float(area), x1, y1, x2 - x1, y2 - y1))
            scale, offset = target["geometry"][[0, 1, 0, 1]], target["geometry"][[2, 3, 2, 3]]
            torch.testing.assert_close(target["boxes"].double(), boxes * scale + offset, atol=1e-3, rtol=1e-5)
    found.sort()
    assert [row[:4] for row in found] == [row[:4] for row in expected]
    np.testing.assert_allclose([row[4:] for row in found], [row[4:] for row in expected], atol=1e-10)
