import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor, distributed

from detlit.callbacks import EMA, Checkpoint
from detlit.callbacks.ema import ema_decay
from detlit.errors import ConfigurationError
from tests.callbacks.tiny import TinyModule, assert_same, quiet_trainer, weights

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "ema.json").read_text())


def read(path: Path | str) -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(path, weights_only=True)
    return checkpoint


class Interrupt(Callback):
    """Raise an exception at a hook, once ``after`` of its calls have passed."""

    def __init__(self, hook: str, exception: type[BaseException], after: int = 0) -> None:
        self.exception, self.left = exception, after
        setattr(self, hook, self._raise)

    def _raise(self, *_: Any, **__: Any) -> None:
        self.left -= 1
        if self.left < 0:
            raise self.exception


# --------------------------------------------------------------------------------------------------- the decay
@pytest.mark.parametrize("run", GOLDEN["runs"], ids=lambda run: f"{run['decay_type']}-{run['decay']}")
def test_decays_of_a_run_are_the_golden_ones(run: dict[str, Any]) -> None:
    steps = range(1, 1 + len(run["decays"]))
    decays = [
        ema_decay(step, GOLDEN["total_steps"], run["decay"], run["decay_type"], run.get("beta", 15)) for step in steps
    ]
    assert decays == pytest.approx(run["decays"], rel=1e-12)


@pytest.mark.parametrize(
    ("name", "ramp", "beta"),
    [("constant",) * 2 + (15,), ("threshold",) * 2 + (15,), ("exp15", "exp", 15), ("exp25", "exp", 25)],
)
def test_decays_of_a_long_run_are_the_golden_ones(name: str, ramp: str, beta: float) -> None:
    grid = GOLDEN["grid"]
    decays = [ema_decay(step, grid["total_steps"], grid["decay"], ramp, beta) for step in grid["steps"]]
    assert decays == pytest.approx(grid[name], rel=1e-12)


# ------------------------------------------------------------------------------------------------------ updates
class HandWritten(Callback):
    """The average as the paper writes it, updated after each batch."""

    def __init__(self, decay: float) -> None:
        self.decay, self.average = decay, {}  # type: ignore[var-annotated]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.average = weights(pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        for name, value in pl_module.state_dict().items():
            self.average[name] = (
                self.decay * self.average[name] + (1 - self.decay) * value
                if value.is_floating_point()
                else value.clone()
            )


def test_average_is_the_hand_written_one_and_stays_in_the_module(tmp_path: Path) -> None:
    module, ema, by_hand = TinyModule(), EMA(0.9, ramp="constant"), HandWritten(0.9)
    quiet_trainer(tmp_path, callbacks=[ema, by_hand], max_epochs=2, enable_checkpointing=False).fit(module)
    assert ema.updates == 16
    torch.testing.assert_close(weights(module), by_hand.average)


class SlowTwin(Callback):
    """The average of parameters and buffers one by one; ``decays`` holds that of each optimizer step that updates."""

    def __init__(self, decays: dict[int, float], start_step: int) -> None:
        self.decays, self.start_step, self.step = decays, start_step, 0
        self.average: dict[str, Tensor] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.average = weights(pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step == self.step:
            return
        self.step = trainer.global_step
        decay = 0.0 if self.step <= self.start_step else self.decays.get(self.step, 1.0)
        for name, value in pl_module.state_dict().items():
            averaged = decay * self.average[name] + (1 - decay) * value if value.is_floating_point() else value
            self.average[name] = averaged.clone()


@pytest.mark.parametrize(
    ("options", "accumulate", "decays", "start_step"),
    [
        ({"decay": 0.9, "ramp": "constant", "update_period": 3}, 1, dict.fromkeys((3, 6, 9, 12, 15), 0.9**3), 0),
        ({"decay": 0.9, "update_period": 2}, 2, {s: min(0.9, (1 + s) / (10 + s)) ** 2 for s in (2, 4, 6, 8)}, 0),
        ({"decay": 0.9, "ramp": "constant", "start_step": 5}, 1, dict.fromkeys(range(6, 17), 0.9), 5),
        ({"decay": 0.9, "start_epoch": 1}, 1, {8 + s: min(0.9, (1 + s) / (10 + s)) for s in range(1, 9)}, 8),
        ({"decay": 0.9, "ramp": "constant", "start_epoch": 1, "start_step": 2}, 1, dict.fromkeys(range(9, 17), 0.9), 8),
        ({"alpha": 0.05}, 1, dict.fromkeys(range(1, 17), 1 - 0.05 * 2 / 2), 0),
        ({"alpha": 0.05, "update_period": 4}, 2, dict.fromkeys((4, 8), 1 - 0.05 * 4 / 2 * 4), 0),
        ({"alpha": 2.0}, 1, dict.fromkeys(range(1, 17), 0.0), 0),
    ],
)
def test_period_start_and_alpha_are_those_of_the_slow_twin(
    tmp_path: Path, options: dict[str, Any], accumulate: int, decays: dict[int, float], start_step: int
) -> None:
    ema, twin, module = EMA(**options), SlowTwin(decays, start_step), TinyModule()
    quiet_trainer(
        tmp_path, callbacks=[ema, twin], max_epochs=2, accumulate_grad_batches=accumulate, enable_checkpointing=False
    ).fit(module)
    assert ema.updates == len(decays)
    # The running statistics of batch norm also move in batches that only accumulate.
    expected = {**twin.average} if accumulate == 1 else {k: v for k, v in twin.average.items() if "running" not in k}
    torch.testing.assert_close({name: weights(module)[name] for name in expected}, expected)


def test_alpha_is_that_of_basecls() -> None:
    """``1 - 1e-5 * (1024 / 100 * 32)``, as its documentation computes it in float32."""
    loader = SimpleNamespace(batch_size=512)
    trainer = SimpleNamespace(
        max_epochs=100, train_dataloader=loader, world_size=2, accumulate_grad_batches=1, global_step=0
    )
    ema = EMA(alpha=1e-5, update_period=32)
    ema.on_train_start(trainer, TinyModule())  # type: ignore[arg-type]
    assert ema._decay() == pytest.approx(0.9967232, abs=1e-9)


@pytest.mark.parametrize(("accumulate", "updates"), [(1, 8), (4, 2), (3, 3)])
def test_one_update_per_optimizer_step(tmp_path: Path, accumulate: int, updates: int) -> None:
    ema = EMA()
    quiet_trainer(tmp_path, callbacks=[ema], accumulate_grad_batches=accumulate, enable_checkpointing=False).fit(
        TinyModule()
    )
    assert ema.updates == updates


def test_a_second_fit_starts_a_new_average(tmp_path: Path) -> None:
    ema = EMA()
    for _ in range(2):
        quiet_trainer(tmp_path, callbacks=[ema], enable_checkpointing=False).fit(TinyModule())
        assert ema.updates == 8


def test_exp_ramp_counts_to_the_end_of_the_run(tmp_path: Path) -> None:
    used: list[float] = []
    ema = EMA(0.9, ramp="exp", beta=15)

    class Probe(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            used.append(ema._total_steps)

    quiet_trainer(tmp_path, callbacks=[ema, Probe()], max_epochs=3, enable_checkpointing=False).fit(TinyModule())
    assert used == [24] * 24


# --------------------------------------------------------------------------------------------------- validation
def test_validation_sees_the_average_and_training_goes_on_with_the_weights(tmp_path: Path) -> None:
    with_ema, without = TinyModule(), TinyModule()
    log: list[dict[str, Tensor]] = []
    addresses: set[tuple[int, ...]] = set()

    class AfterValidation(Callback):
        def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
            addresses.add(tuple(value.data_ptr() for value in pl_module.state_dict().values()))

        def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            log.append(weights(pl_module))
            addresses.add(tuple(value.data_ptr() for value in pl_module.state_dict().values()))

    by_hand = HandWritten(0.9)
    quiet_trainer(
        tmp_path, callbacks=[by_hand, EMA(0.9, "constant"), AfterValidation()], max_epochs=2, enable_checkpointing=False
    ).fit(with_ema)
    quiet_trainer(tmp_path, callbacks=[AfterValidation()], max_epochs=2, enable_checkpointing=False).fit(without)
    assert_same(log[0], log[2])
    assert_same(log[1], log[3])
    torch.testing.assert_close(with_ema.seen[-1], by_hand.average["network.0.weight"])
    assert not torch.equal(with_ema.seen[0], without.seen[0])
    assert len(addresses) == 2  # one module each, whose tensors never moved


def test_before_the_first_update_validation_sees_the_weights(tmp_path: Path) -> None:
    module, initial = TinyModule(), TinyModule().network[0].weight
    trainer = quiet_trainer(
        tmp_path, callbacks=[EMA()], accumulate_grad_batches=8, val_check_interval=4, enable_checkpointing=False
    )
    trainer.fit(module)
    before, after = module.seen
    assert torch.equal(before, initial)
    assert not torch.equal(after, initial)


@pytest.mark.parametrize("hook", ["on_validation_batch_end", "on_validation_epoch_end", "on_train_batch_end"])
@pytest.mark.parametrize("exception", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_run_leaves_the_weights_as_trained(
    tmp_path: Path, hook: str, exception: type[BaseException]
) -> None:
    trained: dict[str, Tensor] = {}
    module = TinyModule()
    module.on_step = lambda: trained.update(weights(module))
    trainer = quiet_trainer(
        tmp_path,
        callbacks=[EMA(0.9, "constant"), Interrupt(hook, exception, after=7)],
        max_epochs=9,
        enable_checkpointing=False,
    )
    with pytest.raises((SystemExit, exception)):
        trainer.fit(module)
    if hook.startswith("on_validation"):
        assert len(module.seen) >= 1
        assert_same(weights(module), trained)


def validated(folder: Path, validate: Any, **arguments: Any) -> tuple[TinyModule, Trainer, list[dict[str, Tensor]]]:
    """Train two epochs, and return the module, the trainer, and the weights as trained at each validation."""
    module, trained = TinyModule(), []

    class Keep(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            trained.append(weights(pl_module))

    callbacks = [EMA(0.9, validate=validate), Keep(), *arguments.pop("callbacks", [])]
    trainer = quiet_trainer(folder, callbacks=callbacks, max_epochs=2, **arguments)
    trainer.fit(module)
    return module, trainer, trained


def test_validation_may_see_the_weights_as_trained(tmp_path: Path) -> None:
    module, trainer, trained = validated(tmp_path, "raw")
    assert [seen.tolist() for seen in module.seen] == [state["network.0.weight"].tolist() for state in trained]
    assert trainer.callback_metrics["val/map"] == pytest.approx(trained[1]["network.0.weight"].mean().item())
    assert not torch.equal(module.network[0].weight, trained[1]["network.0.weight"])  # fit ends with the average


def test_validation_may_see_both_and_logs_each_under_its_name(tmp_path: Path) -> None:
    monitor = ModelCheckpoint(tmp_path, monitor="val_raw/map", mode="max")
    module, trainer, trained = validated(tmp_path, "both", callbacks=[monitor], num_sanity_val_steps=1)
    alone, _, trained_alone = validated(tmp_path / "alone", "ema", num_sanity_val_steps=1)
    sanity, *seen = module.seen
    assert_same({"0": sanity, **trained[0]}, {"0": alone.seen[0], **trained_alone[0]})
    assert_same(trained[1], trained_alone[1])
    assert [raw.tolist() for raw in seen[::2]] == [state["network.0.weight"].tolist() for state in trained]
    assert [ema.tolist() for ema in seen[1::2]] == [ema.tolist() for ema in alone.seen[1:]]
    assert trainer.callback_metrics["val_raw/map"] == pytest.approx(seen[2].mean().item())
    assert trainer.callback_metrics["val/map"] == pytest.approx(seen[3].mean().item())
    assert monitor.best_model_score is not None
    assert monitor.best_model_score.item() == pytest.approx(max(seen[0].mean().item(), seen[2].mean().item()))
    assert module.training
    total = trainer.fit_loop.epoch_loop.val_loop.batch_progress.total
    assert total.completed == 8  # those of the last epoch, counted once
    validated_again = len(module.seen)
    quiet_trainer(tmp_path).validate(module, verbose=False)
    assert len(module.seen) == validated_again + 1


def test_a_broken_pass_over_the_weights_as_trained_leaves_everything_as_it_was(tmp_path: Path) -> None:
    module = TinyModule()
    trained: dict[str, Tensor] = {}
    module.on_step = lambda: trained.update(weights(module))
    module.validation_step = lambda *_: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    trainer = quiet_trainer(tmp_path, callbacks=[EMA(0.9, validate="both")], enable_checkpointing=False)
    with pytest.raises(ZeroDivisionError):
        trainer.fit(module)
    assert_same(weights(module), trained)
    assert "log" not in vars(module)
    assert "run" not in vars(trainer.fit_loop.epoch_loop.val_loop)
    assert len(trainer.callbacks) == 1  # type: ignore[attr-defined]


# -------------------------------------------------------------------------------------------------- checkpoints
def fit_with_checkpoints(folder: Path, epochs: int, ckpt_path: Path | None = None, **arguments: Any) -> dict[str, Any]:
    """Train and return the last checkpoint."""
    ema = arguments.pop("ema", {})
    callbacks = [EMA(0.9, **ema), *Checkpoint(dirpath=folder).callbacks(), *arguments.pop("callbacks", [])]
    trainer = quiet_trainer(folder, callbacks=callbacks, max_epochs=epochs, **arguments)
    trainer.fit(TinyModule(), ckpt_path=ckpt_path)
    return read(folder / "last.ckpt")


def assert_same_training_state(actual: dict[str, Any], expected: dict[str, Any]) -> None:
    assert_same(actual["state_dict"], expected["state_dict"])
    assert_same(actual["current_model_state"], expected["current_model_state"])
    actual, expected = actual["averaging_state"], expected["averaging_state"]
    assert actual["n_averaged"] == expected["n_averaged"]
    assert_same(actual.get("higher_precision", {}), expected.get("higher_precision", {}))


def test_last_checkpoint_holds_the_average_and_the_weights_as_trained(tmp_path: Path) -> None:
    module, trained = TinyModule(), {}
    module.on_step = lambda: trained.update(weights(module))
    callbacks = [EMA(0.9), *Checkpoint(dirpath=tmp_path).callbacks()]
    quiet_trainer(tmp_path, callbacks=callbacks, max_epochs=2).fit(module)
    checkpoint = read(tmp_path / "last.ckpt")
    assert_same(checkpoint["current_model_state"], trained)
    assert_same(checkpoint["state_dict"], weights(module))
    assert checkpoint["averaging_state"]["n_averaged"] == 16
    assert not torch.equal(trained["network.0.weight"], module.network[0].weight)


@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_two_and_two_epochs_are_four(tmp_path: Path, precision: Any) -> None:
    straight = fit_with_checkpoints(tmp_path / "straight", 4, precision=precision)
    fit_with_checkpoints(tmp_path / "half", 2, precision=precision)
    resumed = fit_with_checkpoints(tmp_path / "rest", 4, tmp_path / "half" / "last.ckpt", precision=precision)
    assert_same_training_state(resumed, straight)
    assert ("higher_precision" in resumed["averaging_state"]) == (precision == "bf16-true")


@pytest.mark.parametrize(
    "ema",
    [
        {"start_step": 12},
        {"start_step": 20},
        {"start_epoch": 2},
        {"update_period": 5},
        {"ramp": "exp", "update_period": 3, "start_step": 7},
        {"alpha": 0.05, "validate": "both"},
    ],
    ids=str,
)
def test_resuming_before_or_after_the_start_and_within_a_period_is_exact(tmp_path: Path, ema: dict[str, Any]) -> None:
    straight = fit_with_checkpoints(tmp_path / "straight", 4, ema=ema)
    stop = Interrupt("on_train_epoch_start", KeyboardInterrupt, after=2)  # the run is four epochs long, but stopped
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        fit_with_checkpoints(tmp_path / "half", 4, ema=ema, callbacks=[stop])
    resumed = fit_with_checkpoints(tmp_path / "rest", 4, tmp_path / "half" / "last.ckpt", ema=ema)
    assert_same_training_state(resumed, straight)


def test_before_the_start_a_checkpoint_holds_the_weights_alone(tmp_path: Path) -> None:
    checkpoint = fit_with_checkpoints(tmp_path, 1, ema={"start_epoch": 1})
    assert "averaging_state" not in checkpoint


def test_resuming_after_a_crash_is_exact(tmp_path: Path) -> None:
    straight = fit_with_checkpoints(tmp_path / "straight", 3)
    crash = Interrupt("on_train_batch_end", RuntimeError, after=19)
    with pytest.raises(RuntimeError):
        fit_with_checkpoints(tmp_path / "crashed", 3, callbacks=[crash])
    resumed = fit_with_checkpoints(tmp_path / "crashed", 3, tmp_path / "crashed" / "last.ckpt")
    assert_same_training_state(resumed, straight)


def test_a_checkpoint_saved_while_validating_has_both_states(tmp_path: Path) -> None:
    trained: dict[str, Tensor] = {}
    module = TinyModule()
    module.on_step = lambda: trained.update(weights(module))

    class SaveWithin(Callback):
        def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            trainer.save_checkpoint(tmp_path / "within.ckpt")

    quiet_trainer(tmp_path, callbacks=[EMA(0.9), SaveWithin()], enable_checkpointing=False).fit(module)
    checkpoint = read(tmp_path / "within.ckpt")
    assert_same(checkpoint["current_model_state"], trained)
    assert torch.equal(checkpoint["state_dict"]["network.0.weight"], module.seen[0])


def test_validate_and_test_use_the_average_of_a_checkpoint(tmp_path: Path) -> None:
    module = TinyModule()
    trainer = quiet_trainer(tmp_path, callbacks=[EMA(0.9), *Checkpoint(dirpath=tmp_path).callbacks()], max_epochs=2)
    trainer.fit(module)
    average = read(tmp_path / "best.ckpt")["state_dict"]["network.0.weight"]
    module.seen.clear()
    trainer.test(module, ckpt_path="best", verbose=False)
    trainer.validate(module, ckpt_path="best", verbose=False)
    fresh = TinyModule()
    quiet_trainer(tmp_path).validate(fresh, ckpt_path=tmp_path / "best.ckpt", verbose=False)
    assert all(torch.equal(seen, average) for seen in [*module.seen, *fresh.seen])
    loaded = TinyModule.load_from_checkpoint(tmp_path / "best.ckpt")
    assert torch.equal(loaded.network[0].weight, average)


def test_best_checkpoint_is_chosen_by_the_score_of_its_average(tmp_path: Path) -> None:
    module = TinyModule()  # logs the mean of the first layer's weights as its score
    callbacks = [EMA(0.9), *Checkpoint(dirpath=tmp_path).callbacks()]
    quiet_trainer(tmp_path, callbacks=callbacks, max_epochs=3).fit(module)
    best = read(tmp_path / "best.ckpt")
    assert best["state_dict"]["network.0.weight"].mean() == max(seen.mean() for seen in module.seen)


def test_training_with_ema_from_a_checkpoint_without_it(tmp_path: Path) -> None:
    quiet_trainer(tmp_path, callbacks=Checkpoint(dirpath=tmp_path).callbacks()).fit(TinyModule())
    checkpoint = fit_with_checkpoints(tmp_path, 2, tmp_path / "last.ckpt")
    assert checkpoint["averaging_state"]["n_averaged"] == 8


def test_lightnings_own_averaging_reads_the_layout(tmp_path: Path) -> None:
    weight_averaging = pytest.importorskip("lightning.pytorch.callbacks.weight_averaging")
    checkpoint = fit_with_checkpoints(tmp_path, 1)
    upstream, module = weight_averaging.WeightAveraging(), TinyModule()
    trainer = quiet_trainer(tmp_path, callbacks=[upstream], enable_checkpointing=False)
    trainer.fit(module, ckpt_path=tmp_path / "last.ckpt")  # the run was complete: nothing is left to train
    assert_same(weights(module), checkpoint["current_model_state"])
    assert_same(weights(upstream._average_model.module), checkpoint["state_dict"])


@pytest.mark.slow
def test_compiling_a_part_in_place_keeps_the_names(tmp_path: Path) -> None:
    module = TinyModule()
    module.network.compile(backend="eager")
    quiet_trainer(tmp_path, callbacks=[EMA(0.9), *Checkpoint(dirpath=tmp_path).callbacks()]).fit(module)
    assert read(tmp_path / "last.ckpt")["state_dict"].keys() == TinyModule().state_dict().keys()


# ---------------------------------------------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"decay": 1.0}, "decay=1.0 does not average"),
        ({"decay": -0.1}, "decay=-0.1 does not average"),
        ({"ramp": "linear"}, "ramp='linear' is unknown"),
        ({"ramp": "exp", "beta": 0.0}, "beta=0.0 would never raise"),
        ({"alpha": 0.0}, "alpha=0.0 would never move the average"),
        ({"update_period": 0}, "update_period=0 never updates: choose 1 or more"),
        ({"start_epoch": -1}, "start_epoch=-1 is before the start of training"),
        ({"start_step": -5}, "start_step=-5 is before the start of training"),
        ({"validate": "none"}, "validate='none' is unknown: choose 'raw', 'ema' or 'both'"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        EMA(**arguments)


def test_a_checkpoint_without_the_average_is_refused(tmp_path: Path) -> None:
    trainer = quiet_trainer(tmp_path, callbacks=[EMA(), ModelCheckpoint(save_weights_only=True)])
    with pytest.raises(ConfigurationError, match="save_weights_only"):
        trainer.fit(TinyModule())


def test_two_averages_of_one_run_are_refused(tmp_path: Path) -> None:
    trainer = quiet_trainer(tmp_path, callbacks=[EMA(), EMA(decay=0.9)])
    with pytest.raises(ConfigurationError, match="two EMA callbacks"):
        trainer.fit(TinyModule([0.1]))


def test_sharded_weights_are_refused() -> None:
    trainer = SimpleNamespace(callbacks=[], strategy=object.__new__(FSDPStrategy), checkpoint_callbacks=[])
    with pytest.raises(ConfigurationError, match="FSDPStrategy splits them over devices"):
        EMA().setup(trainer, TinyModule(), "fit")  # type: ignore[arg-type]


def test_alpha_without_an_end_is_refused(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"max_epochs": -1, "max_steps": 9, "enable_checkpointing": False}
    with pytest.raises(ConfigurationError, match="EMA alpha needs to know the epochs of the run"):
        quiet_trainer(tmp_path, callbacks=[EMA(alpha=1e-3)], **arguments).fit(TinyModule())


def test_exp_ramp_without_an_end_is_refused(tmp_path: Path) -> None:
    trainer = quiet_trainer(tmp_path, callbacks=[EMA(ramp="exp")], max_epochs=-1, enable_checkpointing=False)
    with pytest.raises(ConfigurationError, match="max_epochs=-1 has no end"):
        trainer.fit(TinyModule())


# ------------------------------------------------------------------------------------------------- distributed
class WritesSeen(TinyModule):
    """Writes what each rank validated with and ended with, as forked processes cannot return it."""

    folder = Path()

    def on_validation_epoch_end(self) -> None:
        assert distributed.is_initialized()
        torch.save(weights(self.network), self.folder / f"seen{self.global_rank}.pt")

    def teardown(self, stage: str) -> None:
        torch.save(weights(self.network), self.folder / f"end{self.global_rank}.pt")


@pytest.mark.distributed
def test_all_ranks_validate_and_end_with_the_average_of_rank_0(tmp_path: Path) -> None:
    module = WritesSeen()
    module.folder = tmp_path  # type: ignore[misc]
    callbacks = [EMA(0.9), *Checkpoint(dirpath=tmp_path).callbacks()]
    quiet_trainer(tmp_path, callbacks=callbacks, devices=2, strategy="ddp_fork", max_epochs=2).fit(module)
    for stage in ("seen", "end"):
        first, second = (read(tmp_path / f"{stage}{rank}.pt") for rank in range(2))
        assert_same(first, second)
    average = read(tmp_path / "last.ckpt")["state_dict"]
    assert_same({f"network.{name}": value for name, value in read(tmp_path / "end0.pt").items()}, average)
