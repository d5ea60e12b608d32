"""Real photographs and annotations; DETLIT_TEST_DATA names the folder that holds bccd/ and coco_tiny/."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from detlit.data import CocoDataset, DetectionDataModule, DetectionDataset, VocDataset, YoloDataset, guess_datasets
from detlit.structures import Batch, Target


def bccd(folder: Path, split: str) -> CocoDataset:
    return CocoDataset(f"annotations/instances_{split}.json", f"images/{split}", root=str(folder / "bccd"))


@pytest.mark.parametrize(("split", "images", "boxes"), [("train", 205, 2805), ("val", 87, 1138), ("test", 72, 945)])
@pytest.mark.filterwarnings("ignore:.*without area")
def test_bccd_is_read_whole(data_folder: Path, split: str, images: int, boxes: int) -> None:
    data = bccd(data_folder, split)
    targets = [data.load_target(index) for index in range(len(data))]
    assert (len(data), tuple(data.class_names)) == (images, ("RBC", "WBC", "Platelets"))
    assert sum(len(np.asarray(target["labels"])) for target in targets) == boxes


def test_nothing_else_is_said_of_real_boxes(data_folder: Path) -> None:
    for name in ("bccd", "coco_tiny"):
        for data in guess_datasets(data_folder / name).values():
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                warnings.filterwarnings("ignore", ".*has 1 box without area in the image, .*annotation (2288|887)")
                data.setup()


def test_corners_in_place_of_sizes_are_told(data_folder: Path, tmp_path: Path) -> None:
    content = json.loads((data_folder / "coco_tiny/annotations/instances_val2017.json").read_text())
    for row in content["annotations"]:
        x, y, width, height = row["bbox"]
        row["bbox"] = [x, y, x + width, y + height]
    (tmp_path / "corners.json").write_text(json.dumps(content))
    data = CocoDataset(str(tmp_path / "corners.json"), "val2017", root=str(data_folder / "coco_tiny"))
    with pytest.warns(UserWarning, match=r"has 584 boxes that reach far out of their images, 72% of all"):
        data.setup()


def test_the_box_without_area_is_evaluated_only(data_folder: Path) -> None:
    data = bccd(data_folder, "val")
    with pytest.warns(UserWarning, match=r"1 box without area .*\(annotation 887\)"):
        data.setup()
    samples = [data.load_sample(index) for index in range(len(data))]
    originals = sum(len(sample.originals.boxes) for sample in samples if sample.originals)
    assert (originals, sum(len(sample.boxes) for sample in samples)) == (1138, 1137)


def as_yolo(data: CocoDataset, root: Path, folder: Path, split: str) -> YoloDataset:
    """Write the annotations as YOLO text files beside the same images."""
    (root / "images").mkdir()
    (root / "images" / split).symlink_to(folder / "bccd/images" / split)
    (root / "labels" / split).mkdir(parents=True)
    (root / "data.yaml").write_text(f"{split}: images/{split}\nnames: {list(data.class_names)}\n")
    for index in range(len(data)):
        truth, (height, width) = data.load_target(index), data.image_size(index)
        lines = [
            f"{label} {(x1 + x2) / 2 / width} {(y1 + y2) / 2 / height} {(x2 - x1) / width} {(y2 - y1) / height}\n"
            for label, (x1, y1, x2, y2) in zip(
                np.asarray(truth["labels"]).tolist(), np.asarray(truth["boxes"]).tolist(), strict=True
            )
        ]
        (root / "labels" / split / Path(truth["path"]).with_suffix(".txt").name).write_text("".join(lines))
    return YoloDataset(split, root=str(root))  # type: ignore[arg-type]


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.filterwarnings("ignore:.*without area")
def test_bccd_is_the_same_as_coco_as_voc_and_as_yolo(
    data_folder: Path, tmp_path: Path, split: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    coco = bccd(data_folder, split)
    voc = VocDataset(
        "voc/Annotations",
        f"images/{split}",
        split=f"voc/ImageSets/Main/{split}.txt",
        root=str(data_folder / "bccd"),
        class_names=coco.class_names,
    )
    yolo = as_yolo(coco, tmp_path, data_folder, split)
    assert tuple(coco.class_names) == tuple(voc.class_names) == tuple(yolo.class_names)
    expected = by_name(coco)
    for other in (by_name(voc), by_name(yolo)):
        assert other.keys() == expected.keys()
        for name, (image, target) in expected.items():
            other_image, found = other[name]
            assert torch.equal(other_image, image)
            for key in ("boxes", "labels", "iscrowd", "geometry", "orig_labels", "orig_iscrowd"):
                assert torch.equal(found[key], target[key]), (name, key)
            assert found["orig_size"] == target["orig_size"]
            torch.testing.assert_close(found["orig_boxes"], target["orig_boxes"], atol=1e-9, rtol=0)
            torch.testing.assert_close(found["orig_area"], target["orig_area"], atol=1e-9, rtol=0)


def by_name(data: DetectionDataset) -> dict[str, tuple[torch.Tensor, Target]]:
    samples = [data[index] for index in range(len(data))]
    return {Path(target["path"]).name: (image, target) for image, target in samples}


@pytest.mark.filterwarnings("ignore:.*without area")
def test_formats_are_guessed(data_folder: Path) -> None:
    assert {split: len(data) for split, data in guess_datasets(data_folder / "bccd").items()} == {
        "train": 205,
        "val": 87,
        "test": 72,
    }
    assert {split: len(data) for split, data in guess_datasets(data_folder / "coco_tiny").items()} == {
        "train": 80,
        "val": 80,
    }


@pytest.mark.parametrize(("split", "crowds"), [("train2017", 6), ("val2017", 11)])
def test_coco_tiny_loads_with_its_crowds(data_folder: Path, split: str, crowds: int) -> None:
    data = CocoDataset(f"annotations/instances_{split}.json", split, root=str(data_folder / "coco_tiny"))
    assert sum(int(data[index][1]["iscrowd"].sum()) for index in range(len(data))) == crowds


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
