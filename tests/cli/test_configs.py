"""Finding configs, and what they say before they are parsed."""

from pathlib import Path

import pytest

from detlit.cli.configs import config_folder, find_config, find_key, with_shipped_configs
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
    assert with_shipped_configs(["fit", flag, "quickstart"]) == ["fit", flag, "quickstart"]


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
