"""Finding configs, and what they say before they are parsed."""

import copy
from pathlib import Path

import pytest

from detlit.cli.configs import (
    config_folder,
    find_config,
    find_key,
    load_config,
    with_shipped_configs,
    with_shipped_parts,
)
from detlit.errors import ConfigurationError


def test_shipped_configs_are_found_by_name() -> None:
    assert find_config("quickstart") == config_folder() / "quickstart.yaml"
    assert find_config("custom_coco.yaml") == find_config("custom_coco")


def test_a_file_wins_over_a_shipped_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart").write_text("{}")
    assert find_config("quickstart") == Path("quickstart")


def test_unknown_config_suggests_or_lists() -> None:
    with pytest.raises(ConfigurationError, match="did you mean quickstart"):
        find_config("quikstart")
    with pytest.raises(ConfigurationError, match=r"the shipped ones are .*custom_coco"):
        find_config("xyz")


@pytest.mark.parametrize("form", [["--config", "quickstart"], ["--config=quickstart"]])
def test_arguments_are_rewritten_in_both_forms(form: list[str]) -> None:
    path = str(config_folder() / "quickstart.yaml")
    assert " ".join(with_shipped_configs(["fit", *form])).replace("=", " ") == f"fit --config {path}"


@pytest.mark.parametrize(
    ("flag", "name", "file"),
    [("--data", "voc", "data/voc.yaml"), ("--model.detector", "yolo_nas_n", "model/yolo_nas_n.yaml")],
)
def test_parts_of_a_config_are_found_by_name(flag: str, name: str, file: str) -> None:
    path = str(config_folder() / file)
    assert with_shipped_configs(["fit", flag, name]) == ["fit", flag, path]
    assert with_shipped_configs(["fit", f"{flag}={name}"]) == ["fit", f"{flag}={path}"]


def test_unknown_data_list_what_is_shipped_and_an_unknown_detector_may_be_a_class() -> None:
    with pytest.raises(ConfigurationError, match=r"no data config quickstart.*: those are coco2017, "):
        with_shipped_configs(["fit", "--data", "quickstart"])
    with pytest.raises(ConfigurationError, match=r"did you mean custom_coco\?"):
        with_shipped_configs(["fit", "--data", "custom_coco_cpu"])
    assert with_shipped_configs(["fit", "--model.detector", "Detector"]) == ["fit", "--model.detector", "Detector"]


def test_parts_are_found_by_name_in_config_files_too(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("model: {detector: yolo_nas_n}\ndata: voc\n")
    assert load_config(tmp_path / "mine.yaml") == {
        "model": {"detector": str(config_folder() / "model/yolo_nas_n.yaml")},
        "data": str(config_folder() / "data/voc.yaml"),
    }
    assert find_key(tmp_path / "mine.yaml", "model.detector.init_args.backbone")


def test_a_file_beside_the_config_wins_over_a_shipped_part_wherever_one_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.yaml").write_text("model: {detector: yolo_nas_n.yaml}\ndata: voc.yaml\n")
    (tmp_path / "yolo_nas_n.yaml").write_text("init_args: {num_classes: 5}\n")
    (tmp_path / "voc.yaml").write_text("root: here\n")
    for folder in (tmp_path, tmp_path.parent):
        monkeypatch.chdir(folder)
        assert load_config(tmp_path / "mine.yaml") == {"model": {"detector": "yolo_nas_n.yaml"}, "data": "voc.yaml"}
        assert find_key(tmp_path / "mine.yaml", "model.detector.init_args.num_classes")


def test_a_model_section_in_a_file_of_its_own_names_a_shipped_detector_too() -> None:
    assert with_shipped_parts({"detector": "yolo_nas_n"}) == {
        "detector": str(config_folder() / "model/yolo_nas_n.yaml")
    }


@pytest.mark.parametrize("config", [{"model": None}, {"data": {"root": "voc"}}, {"model": "voc"}, ["data"], None, 3])
def test_what_names_no_part_stays(config: object) -> None:
    assert with_shipped_parts(copy.deepcopy(config)) == config


def test_inline_json_is_left_alone() -> None:
    assert with_shipped_configs(["fit", "--config", '{"a": 1}']) == ["fit", "--config", '{"a": 1}']


def test_keys_are_found_through_included_files(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "net.yaml").write_text("class_path: X\ninit_args: {num_classes: 3}\n")
    (tmp_path / "parts" / "model.yaml").write_text("detector: net.yaml\n")
    (tmp_path / "run.yaml").write_text("model: parts/model.yaml\n")
    assert find_key(tmp_path / "run.yaml", "model.detector.init_args.num_classes")
    assert not find_key(tmp_path / "run.yaml", "model.class_names")


def test_broken_yaml_names_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("model:\n  a: [1,\n")
    with pytest.raises(ConfigurationError, match=r"bad\.yaml cannot be read in line \d"):
        find_key(tmp_path / "bad.yaml", "model.a")
