"""The shipped data configs parse, and touch no disk until they are used."""

from pathlib import Path
from typing import Any

import pytest
from jsonargparse import ArgumentParser

from detlit.cli.configs import config_folder, load_config
from detlit.data import CocoDataset, DetectionDataModule
from detlit.data.transforms import HorizontalFlip, RandomAffine
from detlit.structures import Preprocessing

CONFIGS = sorted((config_folder() / "data").glob("*.yaml"))


def parse(config: Path | str, *arguments: str) -> DetectionDataModule:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(DetectionDataModule, "data", sub_configs=True)
    return parser.instantiate(parser.parse_args(["--data", str(config), *arguments])).data


def test_there_are_configs() -> None:
    assert {path.stem for path in CONFIGS} >= {"shapes", "custom_coco", "coco2017"}


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_each_config_is_built_without_reading_files(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: Any = "[a, b]"
    data = parse(config, f"--data.class_names={names}", "--data.num_workers=3")
    assert (data.class_names, data.num_workers) == (("a", "b"), 3)


def test_the_command_line_sets_the_root(write_coco: Any) -> None:
    root = write_coco()
    write_coco(name="instances_train", folder="images/train")
    (root / "annotations").mkdir()
    (root / "instances_train.json").rename(root / "annotations/instances_train.json")
    data = parse(config_folder() / "data" / "custom_coco.yaml", f"--data.root={root}")
    assert data.class_names == ("cat", "owl", "dog")
    train = data.dataset("train")
    assert isinstance(train, CocoDataset)
    assert len(train) == 3


def test_an_export_of_roboflow_is_read_on_top_of_any_recipe(write_coco: Any) -> None:
    root = write_coco(folder="train")
    (root / "train.json").rename(root / "train/_annotations.coco.json")
    recipe = config_folder() / "data" / "custom_coco.yaml"
    data = parse(recipe, f"--data={config_folder() / 'data' / 'roboflow.yaml'}", f"--data.root={root}")
    train = data.dataset("train")
    assert train is not None
    assert train.image_path(0) == root / "train/30.png"
    for split, folder in (("val", "valid"), ("test", "test")):
        dataset = data.given(split)
        assert isinstance(dataset, CocoDataset)
        assert (dataset.annotations, dataset.images) == (f"{folder}/_annotations.coco.json", folder)


def test_the_recipe_for_roboflow_has_the_data_of_its_data_config() -> None:
    recipe, data = (
        load_config(config_folder() / name) for name in ("recipes/roboflow_yolo_nas_s.yaml", "data/roboflow.yaml")
    )
    assert {split: recipe["data"][split] for split in ("train", "val", "test")} == data


def test_transforms_and_preprocessing_parse(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "preprocessing: {size: [64, 96], content_size: [60, 90], pad_value: 0}\n"
        "augmentations:\n"
        "- {class_path: RandomAffine, init_args: {scale: [0.1, 2.0]}}\n"
        "- HorizontalFlip\n"
    )
    data = parse(tmp_path / "a.yaml")
    assert data.preprocessing == Preprocessing(size=(64, 96), content_size=(60, 90), pad_value=0)
    affine, flip = data.augmentations
    assert isinstance(affine, RandomAffine)
    assert tuple(affine.scale) == (0.1, 2.0)
    assert isinstance(flip, HorizontalFlip)
