"""The JSON schema of the configs: it takes every config that detlit reads, and names the place of a mistake."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from detlit.cli import TRAINER_COMMANDS, main
from detlit.cli.configs import config_folder
from detlit.cli.parsers import command_parsers, concrete
from detlit.cli.schema import Schema, config_schema
from tests.cli.test_entry_point import loaded_after

jsonschema = pytest.importorskip("jsonschema")

SHIPPED = sorted(config_folder().rglob("*.yaml"))

MISTAKES = {
    "modle: {}": ("", "modle"),
    "trainer: {max_epoch: 3}": ("trainer", "max_epoch"),
    "trainer: {max_epochs: three}": ("trainer.max_epochs", "three"),
    "data: {cache: ramm}": ("data.cache", "ramm"),
    "data: {image_size: [1, 2, 3]}": ("data.image_size", "too long"),
    "data: {train: {class_path: CocoDataset, init_args: {anotations: x}}}": ("data.train.init_args", "anotations"),
    "data: {train: {class_path: CocoDatset}}": ("data.train.class_path", "CocoDatset"),
    "data: {train: {class_path: detlit.CocoDatset}}": ("data.train.class_path", "CocoDatset"),
    "data: {augmentations: [{class_path: Mixup, init_args: {probability: often}}]}": (
        "data.augmentations.0.init_args.probability",
        "often",
    ),
    "ema: {decay: high}": ("ema.decay", "high"),
    "ema: {decy: 0.9}": ("ema", "decy"),
    "model: {optimizer: {class_path: AdamW, init_args: {lrr: 1.0}}}": ("model.optimizer.init_args", "lrr"),
    "model: {optimizer: {class_path: AdamW, init_args: {params: []}}}": ("model.optimizer.init_args", "params"),
    "model: {lr_scheduler: {class_path: WarmupCosine, init_args: {warmup: 1}}}": (
        "model.lr_scheduler.init_args",
        "warmup",
    ),
    "model: {detector: {class_path: Detector, init_args: {num_classes: 4}}}": (
        "model.detector.init_args",
        "num_classes",
    ),
    "model: {detector: yolo_nas_q}": ("model.detector", "yolo_nas_q"),
    "model: {class_names: [a]}": ("model", "class_names"),
    "trainer: {callbacks: [{class_path: detlit.CloseMosaic, init_args: {epochs: 1}}]}": (
        "trainer.callbacks.0.init_args",
        "epochs",
    ),
    "{train: {class_path: ShapesDataset}, rot: x}": ("", "rot"),
    "{class_path: detlit.Detector, init_args: {nek: x}}": ("init_args", "nek"),
}

GOOD = [
    "$schema: detlit.schema.json\nmodel: {detector: ../model/yolo_nas_s.yaml, optimizer: AdamW}",
    "{$schema: s.json, train: {class_path: ShapesDataset}}",
    "{$schema: s.json, class_path: detlit.Detector}",
    "model: model.yaml\ndata: data.yaml\ntrainer: {max_epochs: 3, callbacks+: [CloseMosaic]}",
    "model: {detector: yolo_nas_s}\ndata: shapes",
    "ema: null\ncheckpoint: {monitor: val/map_50}",
    "data: {train: {class_path: my.module.Cells, init_args: {anything: 1}}, image_size: [320, 640], batch_size: 4}",
    "data: {train: {annotations: other.json}}",  # on top of a config that says the class
    "trainer: {devices: [0, 1], precision: 16, accelerator: gpu, limit_train_batches: 0.5, logger: false}",
    "trainer: {callbacks: {class_path: lightning.pytorch.callbacks.EarlyStopping, init_args: {monitor: val/map}}}",
]


@pytest.fixture(scope="module")
def schema() -> Schema:
    return config_schema()


def problems(schema: Schema, config: Any) -> list[tuple[str, str]]:
    """Return the place and the message of each thing that a schema says is wrong."""
    errors = jsonschema.Draft7Validator(schema).iter_errors(config)
    return [(".".join(map(str, error.absolute_path)), error.message) for error in errors]


def test_it_is_a_schema(schema: Schema) -> None:
    jsonschema.Draft7Validator.check_schema(schema)

    def lists(node: Any) -> Iterator[list[Any]]:
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            if key == "enum" and isinstance(value, list):
                yield value
            elif isinstance(value, (dict, list)):
                yield from lists(value)

    for words in lists(schema):  # editors refuse a schema that repeats itself
        assert len({json.dumps(word) for word in words}) == len(words)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_configs_are_right(path: Path, schema: Schema) -> None:
    assert problems(schema, yaml.safe_load(path.read_text())) == []


@pytest.mark.parametrize("text", GOOD)
def test_what_the_parser_takes_is_right(text: str, schema: Schema) -> None:
    assert problems(schema, yaml.safe_load(text)) == []


@pytest.mark.parametrize("text", MISTAKES)
def test_mistakes_are_named_with_their_place(text: str, schema: Schema) -> None:
    place, name = MISTAKES[text]
    found = problems(schema, yaml.safe_load(text))
    assert [where for where, _ in found] == [place]
    assert name in found[0][1]


def test_the_config_that_a_run_writes_is_right(schema: Schema, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["fit", "--config", "quickstart", "--trainer.callbacks+=CloseMosaic", "--print_config"])
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["trainer"]["callbacks"]
    assert problems(schema, config) == []


def test_a_config_may_name_its_schema(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shapes = (config_folder() / "data" / "shapes.yaml").read_text()
    (tmp_path / "shapes.yaml").write_text(f"$schema: detlit.schema.json\n{shapes}")
    (tmp_path / "run.yaml").write_text("$schema: detlit.schema.json\ndata: shapes.yaml\n")
    arguments = ["fit", "--config", "quickstart", "--config", str(tmp_path / "run.yaml"), "--print_config"]
    with pytest.raises(SystemExit, match=r"^0$"):
        main(arguments)
    assert "$schema" not in capsys.readouterr().out


def test_every_option_has_a_key_with_its_help(schema: Schema) -> None:
    run = schema["else"]["else"]
    parsers = command_parsers()
    for command in TRAINER_COMMANDS:
        for action in parsers[command][0]._actions:
            for option in action.option_strings:
                if option.startswith("--") and not option.endswith((".help", "--help", "config")):
                    node = run
                    for key in option[2:].split("."):
                        node = node["properties"][key]
    trainer, data = (run["properties"][key]["properties"] for key in ("trainer", "data"))
    assert "epochs" in trainer["max_epochs"]["description"]
    assert data["batch_size"]["default"] == 16
    assert data["cache"]["enum"] == ["ram", "disk", None]


def test_of_each_class_one_name_is_offered_and_the_command_knows_it(schema: Schema) -> None:
    """A bare name is looked up among the classes that ``detlit fit`` has imported, and must be the only one there."""
    from detlit.data.datasets.base import DetectionDataset

    offered = schema["definitions"]["DetectionDataset"]["properties"]["class_path"]["anyOf"][0]["enum"]
    assert offered == [cls.__name__ for cls in concrete(DetectionDataset)]
    assert "WarmupCosine" in schema["definitions"]["LRScheduler"]["properties"]["class_path"]["anyOf"][0]["enum"]


def test_the_command_writes_the_schema(schema: Schema, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "detlit.schema.json"
    assert main(["schema", "--output", str(path)]) == 0
    assert capsys.readouterr().out == f"written to {path}\n"
    assert json.loads(path.read_text()).keys() == schema.keys()


def test_a_folder_that_is_missing_is_named_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["schema", "--output", str(tmp_path / "missing" / "schema.json")]
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith(f"detlit: error: there is no folder {tmp_path / 'missing'}")
    assert "torch" not in loaded_after(f"from detlit.cli import main; main({arguments})")
