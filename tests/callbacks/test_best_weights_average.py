import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor

from detlit.callbacks import EMA, Checkpoint
from detlit.callbacks.best_weights_average import BestWeightsAverage, mean_of_files
from detlit.errors import ConfigurationError
from tests.callbacks.tiny import TinyModule, assert_same, quiet_trainer, weights

NAN = float("nan")


class Keep(Callback):
    """Keep the weights as trained at the end of each epoch."""

    def __init__(self) -> None:
        self.states: list[dict[str, Tensor]] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.states.append(weights(pl_module))


def mean(states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of states, best first, one value at a time."""
    result = {}
    for name, value in states[0].items():
        total = sum(state[name].double() for state in states) / len(states)
        result[name] = total.to(value.dtype) if value.is_floating_point() else value
    return result


def fit(
    folder: Path, average: BestWeightsAverage, scores: list[float], *callbacks: Callback, **arguments: Any
) -> tuple[TinyModule, Trainer]:
    module, ckpt_path = TinyModule([*scores, 0.0]), arguments.pop("ckpt_path", None)
    savers = Checkpoint(dirpath=folder).callbacks()
    trainer = quiet_trainer(folder, callbacks=[average, *callbacks, *savers], max_epochs=len(scores), **arguments)
    trainer.fit(module, ckpt_path=ckpt_path)
    return module, trainer


@pytest.mark.parametrize(
    ("scores", "k", "mode", "best"),
    [
        ([0.1, 0.5, 0.3, 0.4], 2, "max", [1, 3]),
        ([0.1, 0.5, 0.3, 0.4], 1, "max", [1]),
        ([0.1, 0.5, 0.3, 0.4], 10, "max", [1, 3, 2, 0]),
        ([0.1, 0.5, 0.3, 0.4], 2, "min", [0, 2]),
        ([0.2, 0.2, 0.2, 0.1], 2, "max", [0, 1]),
        ([NAN, 0.2, float("inf"), 0.1], 3, "max", [1, 3]),
    ],
)
def test_the_mean_of_the_best_is_validated_and_saved(
    tmp_path: Path, scores: list[float], k: int, mode: Any, best: list[int]
) -> None:
    keep, average = Keep(), BestWeightsAverage(k=k, mode=mode)
    module, _ = fit(tmp_path, average, scores, keep)
    expected = mean([keep.states[epoch] for epoch in best])
    assert average.average_path == tmp_path / "average.ckpt"
    saved = torch.load(average.average_path, weights_only=True)
    assert_same(saved["state_dict"], expected)
    assert torch.equal(module.seen[-1], expected["network.0.weight"])  # what the last validation was done with
    assert_same(weights(module), keep.states[-1])
    assert not {"optimizer_states", "lr_schedulers", "loops", "callbacks"} & saved.keys()
    assert not (tmp_path / "average").exists()
    assert module.training


def test_the_score_of_the_mean_is_logged_beside_the_others(tmp_path: Path) -> None:
    average, logger = BestWeightsAverage(k=2), CSVLogger(tmp_path)
    module = TinyModule()  # logs the mean of its first weights
    trainer = quiet_trainer(tmp_path, callbacks=[average], logger=logger, max_epochs=3)
    trainer.fit(module)
    assert average.average_path is not None
    score = torch.load(average.average_path, weights_only=True)["state_dict"]["network.0.weight"].mean().item()
    assert average.average_score == pytest.approx(score)
    assert trainer.callback_metrics["val_average/map"] == pytest.approx(score)
    assert trainer.callback_metrics["val/map"] == pytest.approx(module.seen[-2].mean().item())
    assert "val_average/map" in (Path(logger.log_dir) / "metrics.csv").read_text()


def test_the_module_keeps_its_score_threshold_and_the_mean_has_its_own(tmp_path: Path) -> None:
    class Choosing(TinyModule):
        score_threshold = 0.0

        def on_validation_epoch_end(self) -> None:
            self.score_threshold += 0.25

        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            checkpoint["score_threshold"] = self.score_threshold

    module, average = Choosing(), BestWeightsAverage(k=2)
    quiet_trainer(tmp_path, callbacks=[average], max_epochs=2).fit(module)
    assert module.score_threshold == 0.5
    assert torch.load(average.average_path, weights_only=True)["score_threshold"] == 0.75  # type: ignore[arg-type]


def test_with_ema_the_averages_are_averaged_wherever_the_callback_stands(tmp_path: Path) -> None:
    saved, seen = [], []
    for name in ("before", "after"):
        average, ema = BestWeightsAverage(k=2, dirpath=tmp_path / name), EMA(0.9, validate="both")
        callbacks: list[Callback] = [average, ema] if name == "before" else [ema, average]
        module = TinyModule([0.1, 0.3, 0.2, 0.0])
        quiet_trainer(tmp_path, callbacks=callbacks, max_epochs=3, enable_checkpointing=False).fit(module)
        saved.append(torch.load(tmp_path / name / "average.ckpt", weights_only=True))
        seen.append(module.seen)
        assert not torch.equal(weights(module)["network.0.weight"], seen[-1][-1])  # ends with its average
    assert_same(saved[0]["state_dict"], saved[1]["state_dict"])
    assert not {"current_model_state", "averaging_state"} & saved[0].keys()
    *_, raw2, ema2, raw3, ema3, final = seen[0]
    assert torch.equal(final, ((ema2.double() + ema3.double()) / 2).float())
    assert torch.equal(saved[0]["state_dict"]["network.0.weight"], final)
    assert not torch.equal(raw2, ema2)
    assert not torch.equal(raw3, ema3)


def test_the_average_can_be_loaded_and_tested(tmp_path: Path) -> None:
    average = BestWeightsAverage(k=2)
    module, trainer = fit(tmp_path, average, [0.1, 0.3, 0.2], EMA(0.9))
    trainer.test(module, ckpt_path=average.average_path, verbose=False)
    loaded = TinyModule.load_from_checkpoint(average.average_path)  # type: ignore[arg-type]
    assert torch.equal(module.seen[-1], loaded.network[0].weight)


class StopAt(Callback):
    """Interrupt a run before an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == self.epoch:
            raise KeyboardInterrupt


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 5])
def test_a_resumed_run_ends_as_one_that_was_never_interrupted(tmp_path: Path, stop: int) -> None:
    scores = [0.3, 0.2, 0.4, 0.1, 0.5, 0.6]  # the third, fifth and sixth each supersede another
    straight, resumed = BestWeightsAverage(k=2), BestWeightsAverage(k=2)
    fit(tmp_path / "straight", straight, scores)
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        fit(tmp_path / "half", BestWeightsAverage(k=2), scores, StopAt(stop))
    fit(tmp_path / "half", resumed, scores, ckpt_path=tmp_path / "half" / "last.ckpt")
    assert straight.average_path is not None
    assert resumed.average_path is not None
    assert_same(*(torch.load(each.average_path, weights_only=True)["state_dict"] for each in (resumed, straight)))
    assert resumed.average_score == straight.average_score
    files = [sorted(path.relative_to(folder) for path in folder.rglob("*")) for folder in tmp_path.iterdir()]
    assert files[0] == files[1]


def test_the_last_checkpoint_names_snapshots_that_are_there_whenever_it_is_asked(tmp_path: Path) -> None:
    class Look(Callback):
        def on_train_batch_start(
            self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
        ) -> None:
            if (tmp_path / "last.ckpt").exists():
                states = torch.load(tmp_path / "last.ckpt", weights_only=True)["callbacks"]
                (state,) = (value for key, value in states.items() if key.startswith("BestWeightsAverage"))
                named.append([(tmp_path / "average" / name).exists() for _, name in state["snapshots"]])

    class Rising(TinyModule):
        def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
            self.log("val/map", float(self.global_step))

    named: list[list[bool]] = []
    callbacks = [BestWeightsAverage(k=2), Look(), *Checkpoint(dirpath=tmp_path).callbacks()]
    quiet_trainer(tmp_path, callbacks=callbacks, max_epochs=3, val_check_interval=2).fit(Rising())
    assert named == 16 * [[True, True]]
    assert not (tmp_path / "average").exists()


def test_a_run_may_go_on_with_fewer_snapshots(tmp_path: Path) -> None:
    scores = [0.3, 0.4, 0.5, 0.1]
    keep, average = Keep(), BestWeightsAverage(k=2)
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        fit(tmp_path, BestWeightsAverage(k=3), scores, keep, StopAt(3))
    fit(tmp_path, average, scores, ckpt_path=tmp_path / "last.ckpt")
    saved = torch.load(tmp_path / "average.ckpt", weights_only=True)["state_dict"]
    assert_same(saved, mean([keep.states[2], keep.states[1]]))
    assert not (tmp_path / "average").exists()


def interrupted(folder: Path, scores: list[float], stop: int, k: int = 2) -> Path:
    """Interrupt a run before an epoch, and return its last checkpoint."""
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        fit(folder, BestWeightsAverage(k=k), scores, StopAt(stop))
    return folder / "last.ckpt"


def saved_average(folder: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(folder / "average.ckpt", weights_only=True)["state_dict"]
    return state


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_runs_resumed_from_one_checkpoint_into_several_folders_are_independent(tmp_path: Path) -> None:
    scores = [0.3, 0.5, 0.4, 0.1, 0.45, 0.2]
    fit(tmp_path / "straight", BestWeightsAverage(k=2), scores)
    last = interrupted(tmp_path / "a", scores, 3)
    snapshots = contents(tmp_path / "a" / "average")
    again = tmp_path / "b" / "last.ckpt"
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        fit(tmp_path / "b", BestWeightsAverage(k=2), scores, StopAt(4), ckpt_path=last)
    fit(tmp_path / "c", BestWeightsAverage(k=2), scores, ckpt_path=last)
    assert contents(tmp_path / "a" / "average") == snapshots
    fit(tmp_path / "a", BestWeightsAverage(k=2), scores, ckpt_path=last)
    fit(tmp_path / "b", BestWeightsAverage(k=2), scores, ckpt_path=again)
    for folder in ("a", "b", "c"):
        assert_same(saved_average(tmp_path / folder), saved_average(tmp_path / "straight"))
        assert not (tmp_path / folder / "average").exists()


def test_what_another_run_left_in_the_folder_is_not_averaged(tmp_path: Path) -> None:
    scores = [0.5, 0.4, 0.1]
    last = interrupted(tmp_path / "a", scores, 2)
    interrupted(tmp_path / "b", scores, 2)
    for path in (tmp_path / "a" / "average").iterdir():
        path.unlink()
    average, keep = BestWeightsAverage(k=2), Keep()
    with pytest.warns(UserWarning, match=r"goes on without val_map-step-8\.ckpt, val_map-step-16\.ckpt, not there"):
        fit(tmp_path / "b", average, scores, keep, ckpt_path=last)
    assert_same(saved_average(tmp_path / "b"), keep.states[-1])


def test_a_checkpoint_that_was_moved_finds_the_snapshots_in_a_folder_that_is_given(tmp_path: Path) -> None:
    scores = [0.5, 0.4, 0.1]
    fit(tmp_path / "straight", BestWeightsAverage(k=2), scores)
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        fit(tmp_path / "a", BestWeightsAverage(k=2, dirpath=tmp_path / "given"), scores, StopAt(2))
    average = BestWeightsAverage(k=2, dirpath=tmp_path / "given")
    fit(tmp_path / "b", average, scores, ckpt_path=tmp_path / "a" / "last.ckpt")
    assert_same(saved_average(tmp_path / "given"), saved_average(tmp_path / "straight"))
    assert [path.name for path in (tmp_path / "given").iterdir()] == ["average.ckpt"]


def test_snapshots_are_found_beside_any_checkpoint_of_the_run(tmp_path: Path) -> None:
    """``last.ckpt`` may have a folder of its own, and the snapshots lie beside the best."""

    def run(folder: Path, *callbacks: Callback, ckpt_path: Path | None = None) -> None:
        best, last = Checkpoint(dirpath=folder).callbacks()[0], Checkpoint(dirpath=folder / "last").callbacks()[-1]
        trainer = quiet_trainer(folder, callbacks=[BestWeightsAverage(k=2), *callbacks, best, last], max_epochs=3)
        trainer.fit(TinyModule([0.5, 0.4, 0.1, 0.0]), ckpt_path=ckpt_path)

    run(tmp_path / "straight")
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        run(tmp_path / "half", StopAt(2))
    run(tmp_path / "half", ckpt_path=tmp_path / "half" / "last" / "last.ckpt")
    assert_same(saved_average(tmp_path / "half"), saved_average(tmp_path / "straight"))


@pytest.mark.parametrize("outside", ["absolute", "../../precious/thesis.ckpt", "notes.txt", "sub/val_map-step-1.ckpt"])
def test_a_checkpoint_names_no_files_but_snapshots(tmp_path: Path, outside: str) -> None:
    scores, run = [0.3, 0.5, 0.1], tmp_path / "run"
    last = interrupted(run, scores, 2)
    mine = [tmp_path / "precious" / "thesis.ckpt", run / "average" / "notes.txt"]
    mine.append(run / "average" / "sub" / "val_map-step-1.ckpt")
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    checkpoint = torch.load(last, weights_only=True)
    (key,) = (key for key in checkpoint["callbacks"] if key.startswith("BestWeightsAverage"))
    name = str(mine[0]) if outside == "absolute" else outside
    checkpoint["callbacks"][key]["snapshots"].append([0.9, name])
    checkpoint["callbacks"][key]["superseded"].append([0, name])
    torch.save(checkpoint, last)
    with pytest.warns(UserWarning, match=rf"ignores {re.escape(name)}, {re.escape(name)}: no names of its snapshots"):
        fit(run, BestWeightsAverage(k=2), scores, ckpt_path=last)
    assert [path.read_text() for path in mine] == 3 * ["mine"]
    assert not list((run / "average").glob("*.ckpt"))
    assert (run / "average.ckpt").exists()


def test_a_run_goes_on_without_snapshots_that_are_gone_and_names_them(tmp_path: Path) -> None:
    scores, average, keep = [0.3, 0.5, 0.1], BestWeightsAverage(k=3), Keep()
    last = interrupted(tmp_path, scores, 2, k=3)
    (tmp_path / "average" / "val_map-step-8.ckpt").unlink()
    with pytest.warns(UserWarning, match=r"goes on without val_map-step-8\.ckpt, not there any more"):
        fit(tmp_path, average, scores, keep, ckpt_path=last)
    second = torch.load(last.with_name("best.ckpt"), weights_only=True)["state_dict"]
    assert_same(saved_average(tmp_path), mean([second, keep.states[-1]]))


def test_the_state_is_plain_data() -> None:
    average = BestWeightsAverage()
    state = {"snapshots": [[0.4, "val_map-step-8.ckpt"]], "superseded": [[16, "val_map-step-12.ckpt"]]}
    average.load_state_dict(json.loads(json.dumps(state)))
    assert average.state_dict() == state


class Lose(Callback):
    """Delete snapshots before the last epoch ends."""

    def __init__(self, folder: Path, pattern: str) -> None:
        self.folder, self.pattern = folder, pattern

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for path in (self.folder / "average").glob(self.pattern):
            path.unlink()


def test_a_run_ends_whatever_became_of_its_snapshots(tmp_path: Path) -> None:
    keep, some, none = Keep(), tmp_path / "some", tmp_path / "none"
    with pytest.warns(UserWarning, match=r"goes on without val_map-step-8\.ckpt, not there any more"):
        fit(some, BestWeightsAverage(), [0.3, 0.5], keep, Lose(some, "*-8.ckpt"))
    assert_same(saved_average(some), keep.states[1])
    average = BestWeightsAverage()
    with pytest.warns(UserWarning, match=r"There is no average\.ckpt, because the snapshots it is made of are gone"):
        fit(none, average, [0.3, 0.5], Lose(none, "*"))
    assert average.average_path is None
    assert not (none / "average.ckpt").exists()
    assert not (none / "average").exists()


def test_half_precision_is_averaged_in_full_and_integers_are_those_of_the_best(tmp_path: Path) -> None:
    paths = [tmp_path / "0", tmp_path / "1", tmp_path / "2"]
    for i, (path, value) in enumerate(zip(paths, [256.0, 258.0, 258.0], strict=True)):
        torch.save({"w": torch.tensor([value], dtype=torch.bfloat16), "n": torch.tensor(7 + i)}, path)
    result = mean_of_files(paths)
    assert result["n"] == 7
    assert result["w"].dtype == torch.bfloat16
    assert result["w"] == 258  # the nearest to 257.3 in steps of 2; a bfloat16 sum would give 256


def test_without_a_validation_there_is_a_warning(tmp_path: Path) -> None:
    average = BestWeightsAverage()
    with pytest.warns(UserWarning, match=r"There is no average\.ckpt, because val/map was never measured"):
        quiet_trainer(tmp_path, callbacks=[average], limit_val_batches=0).fit(TinyModule())
    assert average.average_path is None


def test_a_metric_that_is_not_logged_is_refused(tmp_path: Path) -> None:
    trainer = quiet_trainer(tmp_path, callbacks=[BestWeightsAverage("val/mpa")], enable_checkpointing=False)
    with pytest.raises(ConfigurationError, match="monitor=val/mpa is not logged: choose one of train/loss, val/map"):
        trainer.fit(TinyModule())


@pytest.mark.parametrize(
    ("arguments", "message"), [({"mode": "best"}, "mode='best' is unknown"), ({"k": 0}, "k=0 averages nothing")]
)
def test_bad_arguments_are_refused_by_name(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        BestWeightsAverage(**arguments)


@pytest.mark.distributed
def test_all_ranks_validate_the_same_mean(tmp_path: Path) -> None:
    class Writes(TinyModule):
        def on_validation_epoch_end(self) -> None:
            torch.save(self.seen[-1], tmp_path / f"{self.global_rank}.pt")

    quiet_trainer(
        tmp_path, callbacks=[BestWeightsAverage(dirpath=tmp_path)], devices=2, strategy="ddp_fork", max_epochs=2
    ).fit(Writes())
    average = torch.load(tmp_path / "average.ckpt", weights_only=True)["state_dict"]["network.0.weight"]
    assert all(torch.equal(torch.load(tmp_path / f"{rank}.pt", weights_only=True), average) for rank in range(2))


class Alone(Callback):
    """Let the second process see none of the snapshots, as on a machine with a disk of its own."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if trainer.global_rank == 1:
            exists = Path.exists
            Path.exists = lambda path: path.parent.name != "average" and exists(path)  # type: ignore[assignment, method-assign]


@pytest.mark.distributed
def test_the_first_process_decides_which_snapshots_are_there(tmp_path: Path) -> None:
    scores = [0.5, 0.4, NAN]
    last = interrupted(tmp_path, scores, 2)
    expected = mean_of_files([tmp_path / "average" / f"val_map-step-{step}.ckpt" for step in (8, 16)])
    fit(tmp_path, BestWeightsAverage(k=2), scores, Alone(), ckpt_path=last, devices=2, strategy="ddp_fork")
    assert_same(saved_average(tmp_path), expected)


@pytest.mark.distributed
def test_the_first_process_decides_on_scores(tmp_path: Path) -> None:
    class Apart(TinyModule):
        def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
            self.log("val/map", NAN if self.global_rank else 0.5)

    average = BestWeightsAverage(dirpath=tmp_path)
    quiet_trainer(tmp_path, callbacks=[average], devices=2, strategy="ddp_fork", enable_checkpointing=False).fit(
        Apart()
    )
    assert (tmp_path / "average.ckpt").exists()


def test_a_state_without_superseded_files_is_read() -> None:
    callback = BestWeightsAverage()
    callback.load_state_dict({"snapshots": [[0.5, "val_map-step-3.ckpt"]]})
    assert callback.state_dict() == {"snapshots": [[0.5, "val_map-step-3.ckpt"]], "superseded": []}
