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


# -------------------------------------------------------------------------------------------------- checkpoints
def fit_with_checkpoints(folder: Path, epochs: int, ckpt_path: Path | None = None, **arguments: Any) -> dict[str, Any]:
    """Train and return the last checkpoint."""
    callbacks = [EMA(0.9), *Checkpoint(dirpath=folder).callbacks(), *arguments.pop("callbacks", [])]
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
