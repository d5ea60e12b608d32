"""Fine-tuning in scripts and from the command line: weights to start from, frozen parts, learning rates of parts."""

import logging
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from detlit import DetectionModule
from detlit.callbacks import EMA
from detlit.errors import CheckpointError, ConfigurationError
from tests.cli.test_lightning import run, write_config
from tests.test_module import make_trainer, shapes, shapes_module, trained_checkpoint
from tests.tiny import tiny_detector


def snapshot(module: DetectionModule) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.detector.state_dict().items()}


def changed(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> set[str]:
    """Return the parts of a detector in which any parameter, running statistic or counter moved."""
    return {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("averaged", [True, False])
def test_what_is_frozen_does_not_move_statistics_included(averaged: bool, tmp_path: Path) -> None:
    data = shapes()
    module = shapes_module(data, freeze=["backbone", "neck.*"])
    before = snapshot(module)
    make_trainer(tmp_path, max_epochs=2, callbacks=[EMA(decay=0.5)] if averaged else []).fit(module, data)
    assert changed(before, snapshot(module)) == {"head"}


def test_without_freezing_every_part_moves(tmp_path: Path) -> None:
    data = shapes()
    module = shapes_module(data)
    before = snapshot(module)
    make_trainer(tmp_path).fit(module, data)
    assert changed(before, snapshot(module)) == {"backbone", "neck", "head"}


def test_frozen_parts_stay_in_evaluation_mode_whoever_calls_train() -> None:
    module = DetectionModule(tiny_detector(), freeze=["backbone.stages.0"])
    assert module.train() is module
    training = {name for name, part in module.detector.backbone.stages.named_children() if part.training}
    assert training == {"1", "2", "3"}
    assert not any(part.training for part in module.detector.backbone.stages[0].modules())
    assert module.detector.training
    assert not any(part.training for part in module.eval().modules())


def test_weight_decays_of_patterns_reach_the_optimizer() -> None:
    sgd = partial(torch.optim.SGD, lr=0.1, weight_decay=0.01)
    module = DetectionModule(tiny_detector(), optimizer=sgd, weight_decays={"^head": 0.5, r"stem.*bn\.weight": 0.25})
    optimizer = module.configure_optimizers()
    assert isinstance(optimizer, torch.optim.SGD)
    decay_of = {id(value): group["weight_decay"] for group in optimizer.param_groups for value in group["params"]}
    for name, value in module.detector.named_parameters():
        if name.startswith("head"):
            assert decay_of[id(value)] == 0.5
        elif re.search(r"stem.*bn\.weight", name):
            assert decay_of[id(value)] == 0.25
        else:
            assert decay_of[id(value)] in (0.01, 0.0)
    with pytest.raises(ConfigurationError, match=r"weight_decays names '.nothing'"):
        DetectionModule(tiny_detector(), weight_decays={"^nothing": 0.1})


def test_learning_rates_of_parts_reach_the_optimizer(tmp_path: Path) -> None:
    data = shapes()
    sgd = partial(torch.optim.SGD, lr=0.1, weight_decay=0.01)
    module = shapes_module(data, optimizer=sgd, learning_rates={"backbone": 0.001, "backbone.stem": 0.002})
    trainer = make_trainer(tmp_path, max_steps=1)
    trainer.fit(module, data)
    (optimizer,) = trainer.optimizers
    assert {group["name"]: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups} == {
        "weight": (0.1, 0.01),
        "norm": (0.1, 0.0),
        "bias": (0.1, 0.0),
        "backbone/weight": (0.001, 0.01),
        "backbone/norm": (0.001, 0.0),
        "backbone/bias": (0.001, 0.0),
        "backbone.stem/weight": (0.002, 0.01),
        "backbone.stem/norm": (0.002, 0.0),
        "backbone.stem/bias": (0.002, 0.0),
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"freeze": ["backbone.stage.0"]}, r"freeze names 'backbone.stage.0', .* did you mean backbone.stages.0\?"),
        ({"learning_rates": {"haed": 0.1}}, r"learning_rates names 'haed', .* did you mean head\?"),
        ({"freeze": ["head"], "learning_rates": {"head": 0.1}}, "'head', all of which is frozen"),
    ],
)
def test_names_are_checked_before_anything_runs(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        DetectionModule(tiny_detector(), **arguments)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint of other classes than the shapes."""
    folder = tmp_path_factory.mktemp("weights")
    module = DetectionModule(tiny_detector(2), class_names=["cat", "dog"])
    trainer = make_trainer(folder)
    trainer.strategy.connect(module)
    path = folder / "weights.ckpt"
    trainer.save_checkpoint(path)
    return path


def test_weights_fill_the_detector_and_are_reported(weights: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = shapes()
    with caplog.at_level(logging.INFO):
        module = shapes_module(data, weights=weights)
    stored = torch.load(weights, weights_only=True)["state_dict"]
    own = module.state_dict()
    different = {
        name for name in own if own[name].shape != stored[name].shape or not torch.equal(own[name], stored[name])
    }
    assert different
    assert all(".cls_pred." in name for name in different)
    assert f"{weights} (detlit" in caplog.text


def test_weights_do_not_decide_on_the_preprocessing(weights: Path) -> None:
    data = shapes()
    module = shapes_module(data, weights=weights, preprocessing=data.preprocessing)
    assert module.preprocessing == data.preprocessing


def test_missing_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone\.ckpt"):
        DetectionModule(tiny_detector(), weights=tmp_path / "gone.ckpt")


def test_a_checkpoint_records_its_origin_and_needs_it_no_more(weights: Path, tmp_path: Path) -> None:
    data = shapes()
    copy = tmp_path / "copy.ckpt"
    copy.write_bytes(weights.read_bytes())
    options = {"weights": copy, "freeze": ["backbone"], "learning_rates": {"neck": 0.001}}
    module = shapes_module(data, **options)
    path = trained_checkpoint(tmp_path, data, module)
    copy.unlink()
    stored = torch.load(path, weights_only=True)["detlit"]["module"]
    assert {name: stored[name] for name in options} == {**options, "weights": str(copy)}
    again = DetectionModule.load_from_checkpoint(path)
    assert changed(snapshot(module), snapshot(again)) == set()
    assert again.frozen_parts == ["backbone"]
    assert again.learning_rates == {"neck": 0.001}


def finetuning_config(folder: Path, weights: Path) -> str:
    path = folder / "finetuning.yaml"
    options = {"weights": str(weights), "freeze": ["backbone"], "learning_rates": {"neck": 0.001}}
    path.write_text(yaml.safe_dump({"model": options}))
    return str(path)


def test_the_command_line_fine_tunes_resumes_and_scores_when_the_weights_are_gone(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy.ckpt"
    copy.write_bytes(weights.read_bytes())
    configs = ["--config", write_config(tmp_path), "--config", finetuning_config(tmp_path, copy)]
    assert run("fit", *configs) == 0
    last = tmp_path / "runs/version_0/checkpoints/last.ckpt"
    stored, start = torch.load(last, weights_only=True), torch.load(copy, weights_only=True)["state_dict"]
    backbone = {name: value for name, value in stored["state_dict"].items() if name.startswith("detector.backbone.")}
    assert backbone
    assert all(torch.equal(value, start[name]) for name, value in backbone.items())
    copy.unlink()
    assert run("validate", "--ckpt_path", str(last)) == 0
    assert run("fit", *configs, "--ckpt_path", str(last), "--trainer.max_epochs", "2") == 0
    capsys.readouterr()
    assert run("fit", *configs) == 1
    assert f"there is no checkpoint {copy}" in capsys.readouterr().err
