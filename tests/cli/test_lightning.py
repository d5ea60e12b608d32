"""``detlit fit``, ``validate`` and ``test`` as a user runs them, on a tiny detector and generated images."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from detlit.cli import main
from detlit.cli.configs import config_folder
from detlit.cli.lightning import _is_raised_by_lightning
from detlit.cli.trainer import DetlitTrainer
from detlit.spec import as_config, spec_of
from tests.oracle import write_grey_images
from tests.tiny import tiny_detector

SHAPES = {"class_path": "ShapesDataset", "init_args": {"num_images": 8, "image_size": 64}}


def write_config(folder: Path, **changes: Any) -> str:
    """Write a config of a run of seconds and return its path; ``changes`` replace whole top-level keys."""
    detector = as_config(spec_of(tiny_detector()))
    del detector["init_args"]["num_classes"], detector["init_args"]["preprocessing"]
    config = {
        "model": {"detector": detector, "optimizer": {"class_path": "SGD", "init_args": {"lr": 0.01}}},
        "data": {"train": SHAPES, "val": SHAPES, "test": SHAPES, "image_size": 64, "batch_size": 4, "num_workers": 0},
        "trainer": {
            "max_epochs": 1,
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "default_root_dir": str(folder / "runs"),
            "log_every_n_steps": 1,
        },
        **changes,
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(config))
    return str(path)


def run(*arguments: str) -> int:
    """Return the exit status of a command, however it ends."""
    try:
        return main(list(arguments))
    except SystemExit as leaving:
        return int(leaving.code or 0)


def metrics_of(run_folder: Path) -> list[dict[str, str]]:
    with (run_folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run folder of a finished training."""
    folder = tmp_path_factory.mktemp("trained")
    assert run("fit", "--config", write_config(folder)) == 0
    return folder / "runs" / "version_0"


def test_a_run_leaves_config_metrics_and_two_checkpoints(trained: Path) -> None:
    assert (trained / "config.yaml").is_file()
    assert {path.name for path in (trained / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    columns = metrics_of(trained)[0].keys()
    assert {"train/loss", "train/loss_cls", "train/loss_iou", "train/loss_dfl", "val/map", "val/map_50"} <= columns


def test_the_checkpoint_is_plain_data_and_complete(trained: Path) -> None:
    entry = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)["detlit"]
    assert entry["format"] == 1
    assert entry["class_names"] == entry["data"]["class_names"]
    assert entry["module"]["optimizer"]["init_args"]["lr"] == 0.01
    assert entry["preprocessing"]["size"] == [64, 64]


def scores(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, str]:
    """Run a command and return the rows of the table it prints."""
    capsys.readouterr()
    assert run(*arguments) == 0
    rows = [line.replace("│", " ").replace("┃", " ").split() for line in capsys.readouterr().out.splitlines()]
    return {row[0]: row[1] for row in rows if len(row) == 2}


@pytest.mark.parametrize("command", ["validate", "test"])
def test_a_checkpoint_alone_is_enough(command: str, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = str(trained / "checkpoints" / "best.ckpt")
    before = (trained / "config.yaml").read_text()
    quiet = ("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false")
    table = scores(capsys, command, "--ckpt_path", checkpoint, *quiet)
    assert {"map", "map_50"} <= {name.rpartition("/")[2] for name in table}
    assert (trained / "config.yaml").read_text() == before


def test_flags_win_over_the_checkpoint(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag changes what the checkpoint says: three classes cannot become two, and the error says so."""
    monkeypatch.chdir(tmp_path)
    checkpoint = str(trained / "checkpoints" / "best.ckpt")
    seen: dict[str, Any] = {}
    monkeypatch.setattr(DetlitTrainer, "validate", lambda self, model, **_: seen.update(model=model))
    threshold = "--model.post_prediction_callback.score_threshold=0.9"
    assert run("validate", "--ckpt_path", checkpoint, threshold, "--trainer.accelerator=cpu") == 0
    assert seen["model"].post_prediction_callback.score_threshold == 0.9
    assert seen["model"].optimizer.keywords["lr"] == 0.01


def test_a_checkpoint_that_names_foreign_code_must_be_trusted(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)
    checkpoint["detlit"]["module"]["metric"]["class_path"] = "tests.tiny.Metric"
    torch.save(checkpoint, tmp_path / "foreign.ckpt")
    validate = ("validate", "--ckpt_path", str(tmp_path / "foreign.ckpt"), "--trainer.accelerator=cpu")
    assert run(*validate) == 1
    assert "wants to run tests.tiny.Metric" in capsys.readouterr().err
    for trust in ("--allow_custom_code=true", "--allow_custom_code"):
        assert run(*validate, trust) == 2  # now it is looked for, and there is no such class
        assert "wants to run" not in capsys.readouterr().err


def test_a_later_run_never_overwrites_the_config(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    fixed = ("--trainer.logger", "false", "--trainer.max_steps")
    for steps in ("1", "1", "2"):
        assert run("fit", "--config", config, *fixed, steps) == 0
    saved = sorted(path.name for path in (tmp_path / "runs").glob("config*.yaml"))
    assert saved == ["config.yaml", "config_1.yaml"]
    assert yaml.safe_load((tmp_path / "runs" / "config.yaml").read_text())["trainer"]["max_steps"] == 1


@pytest.mark.parametrize(("limit", "steps"), [("1", 1), ("0.5", 1), ("1.0", 2)])
def test_one_batch_means_one_batch(limit: str, steps: int, tmp_path: Path) -> None:
    assert run("fit", "--config", write_config(tmp_path), "--trainer.limit_train_batches", limit) == 0
    checkpoint = torch.load(tmp_path / "runs/version_0/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == steps


def test_ema_and_checkpoints_can_be_changed_and_turned_off(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    assert run("fit", "--config", config, "--ema.decay", "0.5", "--checkpoint.monitor", "val/map_50") == 0
    folder = tmp_path / "runs" / "version_0" / "checkpoints"
    checkpoint = torch.load(folder / "last.ckpt", weights_only=True)
    assert "current_model_state" in checkpoint
    assert run("fit", "--config", config, "--ema", "null", "--checkpoint", "null") == 0
    assert not (tmp_path / "runs" / "version_1" / "checkpoints").exists()


def test_a_users_callbacks_do_not_lose_ours(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    assert run("fit", "--config", config, "--trainer.callbacks+=ModelSummary", "--trainer.max_steps=1") == 0
    assert (tmp_path / "runs/version_0/checkpoints/last.ckpt").is_file()


def test_a_value_that_is_no_yaml_is_a_string(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = ("--model.freeze+", "*bn", "--trainer.default_root_dir", "out: a: b")
    assert run("fit", "--config", write_config(tmp_path), *odd, "--print_config") == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["model"]["freeze"] == ["*bn"]
    assert printed["trainer"]["default_root_dir"] == "out: a: b"


def test_a_broken_file_in_a_config_is_named_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.yaml").write_text("train: [")
    assert run("fit", "--config", write_config(tmp_path, data="broken.yaml")) == 2
    assert "broken.yaml" in capsys.readouterr().err


def test_another_metric_needs_a_monitor_of_its_own_and_nothing_else(tmp_path: Path) -> None:
    arguments = ["--model.metric", "DetectionMetrics", "--checkpoint.monitor", "val/mAP@0.50:0.95"]
    assert run("fit", "--config", write_config(tmp_path), *arguments) == 0
    assert (tmp_path / "runs/version_0/checkpoints/best.ckpt").is_file()
    assert (tmp_path / "runs/version_0/curves.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data.batch_sise", "3"], "did you mean: --data.batch_size?"),
        (["--trainer.max_epoch", "3"], "did you mean: --trainer.max_epochs?"),
        (["--model.optimizer", "AdmaW"], "did you mean: AdamW?"),
        (["--trainer.max_epochs", "three"], "three"),
        (["--config", '{"trainer": {"max_epoch": 3}}'], "max_epoch"),
        (["--model.optimizer", "{foo"], "foo"),
        (["--config", '{"model": {"optimiser": {"class_path": "AdamW"}}}'], "did you mean: model.optimizer?"),
        (
            ["--model.optimizer.lrr", "1e-4"],
            "model.optimizer: torch.optim.SGD has no argument 'lrr'.\n  did you mean: lr?",
        ),
        (
            ["--trainer.callbacks+=CloseMosaik"],
            "CloseMosaik is neither a class nor a file.\n  did you mean: CloseMosaic?",
        ),
        (["quickstart"], "unrecognized arguments: quickstart\n  did you mean: --config quickstart?"),
    ],
)
def test_typos_get_one_line_and_a_suggestion(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("fit", "--config", write_config(tmp_path), *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("detlit: error: ")
    assert len(error.strip().splitlines()) <= 3
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"detector": "yolo_nas_xs"}, "did you mean: yolo_nas_s?"),
        ({"detector": "nope"}, "model.detector=nope is neither a config file, nor a class, nor one of ppyoloe_l, "),
        ({"detector": {"class_path": "detlit.yolo_nas_s"}}, "model.detector names a function"),
        ({}, "there is no detector: set model.detector to one of ppyoloe_l, "),
    ],
)
def test_a_detector_that_is_none_lists_those_there_are(
    model: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("fit", "--config", write_config(tmp_path, model=model)) == 2
    assert message in capsys.readouterr().err


def test_a_config_names_shipped_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path, model={"detector": "yolo_nas_n"}, data="shapes")
    assert run("fit", "--config", config, "--print_config") == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["model"]["detector"]["class_path"].endswith(".Detector")
    assert printed["data"]["train"]["class_path"].endswith(".ShapesDataset")


@pytest.mark.parametrize(
    ("model", "cure"),
    [
        ({"class_names": ["a"]}, "set data.class_names instead"),
        ({"preprocessing": {"size": [32, 32]}}, "set data.preprocessing instead"),
        ({"detector": {"init_args": {"num_classes": 3}}}, "set data.class_names instead"),
    ],
)
def test_keys_that_come_from_the_data_are_refused(
    model: dict[str, Any], cure: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "linked.yaml"
    config.write_text(yaml.safe_dump({"model": model}))
    for value in (str(config), json.dumps({"model": model})):
        assert run("fit", "--config", write_config(tmp_path), "--config", value) == 2
        assert cure in capsys.readouterr().err


def test_linked_keys_are_refused_as_flags_and_in_the_files_of_flags(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    detector = tmp_path / "detector.yaml"
    detector.write_text("class_path: detlit.Detector\ninit_args: {num_classes: 3}\n")
    for flag in (f"--model.detector={detector}", "--model.class_names=[a]", "--model.detector.num_classes=3"):
        assert run("fit", "--config", write_config(tmp_path), flag) == 2
        assert "comes from the data and cannot be set: set data.class_names instead" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "--trainer.accelerator", "abacus"], "abacus"),
        (["fit", "--trainer.precision", "17"], "17"),
        (["fit", "--model.optimizer.lr", "-1"], "the optimizer refuses its arguments"),
        (["fit", "--checkpoint.monitor", "val/mAP"], "checkpoint.monitor=val/mAP is not logged"),
        (
            ["fit", "--trainer.val_check_interval", "99"],
            "must be less than or equal to the number of the training batches",
        ),
        (["fit", "--ckpt_path", "hpc"], "--ckpt_path hpc names no file"),
        (["fit", "--ckpt_path", "last"], "means the newest last.ckpt in"),
        (["validate"], "the weights would be random: set --ckpt_path"),
    ],
)
def test_settings_that_cannot_work_are_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command, *options = arguments
    assert run(command, "--config", write_config(tmp_path), *options) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_failure_below_lightning_is_no_refused_setting() -> None:
    with pytest.raises(ValueError, match="invalid literal") as below:
        int("x")
    with pytest.raises(ValueError, match="17") as refused:
        DetlitTrainer(precision="17", accelerator="cpu")
    assert [_is_raised_by_lightning(error.value) for error in (below, refused)] == [False, True]


def test_a_config_that_is_no_text_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "binary.yaml").write_bytes(bytes(range(256)))
    assert run("fit", "--config", str(tmp_path / "binary.yaml")) == 2
    assert "binary.yaml is no text file" in capsys.readouterr().err


def coco_config(folder: Path, **changes: Any) -> str:
    write_grey_images(folder / "data")
    dataset = {"class_path": "CocoDataset", "init_args": {"annotations": "instances.json", "images": "images"}}
    data = {"root": str(folder / "data"), "train": dataset, "val": dataset, "image_size": 64, "batch_size": 2}
    return write_config(folder, data={**data, "num_workers": 2, **changes})


def test_an_unreadable_image_is_named_in_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = coco_config(tmp_path)
    (tmp_path / "data/images/3.png").write_bytes(b"not an image")
    assert run("fit", "--config", config) == 1
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("detlit: error: image ")
    assert "3.png cannot be decoded" in last


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"root": "nowhere"}, "nowhere"),
        ({"batch_size": 64}, "64"),
        ({"image_size": 250}, "multiples of 32"),
    ],
    ids=["missing root", "batch larger than the data", "image size"],
)
def test_bad_data_settings_get_one_line(
    changes: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("fit", "--config", coco_config(tmp_path, **changes)) in (1, 2)
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("detlit: error: ")
    assert message in error


def test_a_split_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = coco_config(tmp_path)  # without a test split
    assert run("test", "--config", config, "--ckpt_path", "null") == 2
    assert "there is no test split to score: set data.test" in capsys.readouterr().err


def test_a_missing_checkpoint_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("validate", "--ckpt_path", str(tmp_path / "no.ckpt")) == 1
    assert "there is no checkpoint" in capsys.readouterr().err


def shipped(folder: str) -> list[Any]:
    files = sorted((config_folder() / folder).glob("*.yaml"))
    return [pytest.param(file, id=file.stem) for file in files]


@pytest.mark.parametrize("file", [*shipped("."), *shipped("recipes")])
def test_every_runnable_config_takes_a_step(file: Path, tmp_path: Path) -> None:
    """On small generated images, so that a recipe's data need not be here; the recipe's own data section must parse."""
    small = {"train": SHAPES, "val": SHAPES, "test": None, "image_size": 64, "preprocessing": None}
    override = {"data": {**small, "batch_size": 2, "num_workers": 0}}
    status = run(
        *("fit", "--config", str(file), "--config", json.dumps(override)),
        *("--trainer.fast_dev_run=1", "--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.strategy=auto"),
        *(
            "--trainer.sync_batchnorm=false",
            "--trainer.precision=32-true",
            "--model.lr_scheduler.warmup_steps=0",
            f"--trainer.default_root_dir={tmp_path}",
        ),
    )
    assert status == 0


@pytest.mark.parametrize("name", ["CloseMosaic", "LRWarmup"])
def test_callbacks_are_found_by_their_bare_names(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [f"--trainer.callbacks+={name}", "--print_config"]
    assert run("fit", "--config", write_config(tmp_path), *arguments) == 0
    assert f"class_path: detlit.{name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("data", "dataset", "images"), [("voc", "VocDataset", "JPEGImages"), ("yolo", "YoloDataset", "null")]
)
def test_data_of_another_format_replace_those_of_a_recipe(
    data: str, dataset: str, images: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--config", "custom_coco", "--data", data, "--data.root", "x", "--print_config"]
    assert run("fit", *arguments) == 0
    config = yaml.safe_load(capsys.readouterr().out)["data"]
    for split in ("train", "val", "test"):
        assert config[split]["class_path"] == f"detlit.{dataset}"
        assert config[split]["init_args"]["images"] == yaml.safe_load(images)
        assert "instances" not in str(config[split])
