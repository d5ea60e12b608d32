import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from detlit.callbacks import EMA, BestWeightsAverage, Checkpoint, ExactResume, PreciseBatchNorm
from detlit.callbacks.precise_batch_norm import Moments, _copy_of
from detlit.data import DetectionDataModule, ShapesDataset
from detlit.errors import ConfigurationError
from tests.callbacks.tiny import TinyModule, assert_same, quiet_trainer, weights
from tests.resume import differences


# -------------------------------------------------------------------------------------------------- the moments
def test_moments_are_pooled_over_the_samples() -> None:
    layer = nn.BatchNorm1d(1)
    moments = Moments(layer)
    for batch in ([0.0, 2.0], [4.0, 6.0, 8.0, 10.0]):  # means 1 and 7, variances 1 and 5
        layer(torch.tensor(batch)[:, None])
    moments.handle.remove()
    layer(torch.full((2, 1), 100.0))
    moments.write_to(layer)
    assert layer.state_dict()["running_mean"].tolist() == [5.0]  # (2 * 1 + 4 * 7) / 6
    assert layer.state_dict()["running_var"].tolist() == pytest.approx([70 / 6])  # of 0, 2, ..., 10


def test_moments_of_images_are_those_of_all_pixels_and_large_means_do_not_cancel() -> None:
    layer = nn.BatchNorm2d(3)
    images = 1000 + torch.randn(7, 3, 5, 4)
    moments = Moments(layer)
    for batch in torch.split(images, [2, 2, 3]):
        layer(batch)
    moments.write_to(layer)
    torch.testing.assert_close(layer.running_mean, images.double().mean((0, 2, 3)).float())
    variance = images.double().var((0, 2, 3), correction=0).float()
    torch.testing.assert_close(layer.running_var, variance, rtol=1e-4, atol=0)


def test_a_layer_that_nothing_reaches_keeps_its_statistics() -> None:
    layer = nn.BatchNorm1d(2)
    Moments(layer).write_to(layer)
    assert layer.state_dict()["running_var"].tolist() == [1.0, 1.0]


# ------------------------------------------------------------------------------------------------------ training
class Shuffled(LightningModule):
    """Batch norm, dropout, a shuffling loader and noisy samples: whoever draws one number too many is found out."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 6), nn.BatchNorm1d(6)
        )
        self.validated: list[dict[str, Tensor]] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss: Tensor = self.network(batch).square().mean()
        self.log("train/loss", loss.detach())
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        assert not any(part.training for part in self.network.modules())
        if batch_idx == 0:
            self.validated.append(weights(self))
        self.log("val/map", self.network(batch).mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(
            Samples(), batch_size=4, shuffle=True, collate_fn=lambda rows: torch.stack(rows) + torch.rand(4)
        )

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(Samples(), batch_size=4)


class Samples(Dataset[Tensor]):
    """Twenty-four rows of numbers."""

    def __init__(self) -> None:
        self.rows = torch.randn(24, 4, generator=torch.Generator().manual_seed(1))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Tensor:
        return self.rows[index]


def fit(folder: Path, *callbacks: Callback, ckpt_path: Path | None = None, **arguments: Any) -> dict[str, Any]:
    """Train for three epochs and return the module and ``last.ckpt``."""
    module = arguments.pop("module", None) or Shuffled()
    chosen = [*callbacks, ExactResume(), *Checkpoint(dirpath=folder).callbacks()]
    trainer = quiet_trainer(folder, callbacks=chosen, **{"max_epochs": 3, **arguments})
    torch.manual_seed(5)
    trainer.fit(module, ckpt_path=ckpt_path)
    checkpoint = torch.load(folder / "last.ckpt", weights_only=True)
    return {"module": module, "trainer": trainer, "checkpoint": checkpoint}


def _is_statistic(name: str) -> bool:
    return "running" in name or "num_batches" in name


def without_statistics(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if not _is_statistic(name)}


class Watch(Callback):
    """Keeps the batches that a training step saw while validating, and the weights that it saw them with."""

    def __init__(self) -> None:
        self.batches: list[list[Tensor]] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        step, watch = pl_module.training_step, self

        def watched(batch: Tensor, batch_idx: int) -> Any:
            if not torch.is_grad_enabled():
                if batch_idx == 0:
                    watch.batches.append([])
                watch.batches[-1].append(batch.clone())
            return step(batch, batch_idx)

        pl_module.training_step = watched  # type: ignore[method-assign]


class NoDropout(Shuffled):
    """Without dropout statistics follow from weights and samples."""

    def __init__(self) -> None:
        super().__init__()
        self.network[3] = nn.Identity()


def slow_statistics(state: dict[str, Tensor], batches: list[Tensor]) -> dict[str, Tensor]:
    """Return the statistics of both layers by normalising with each batch's own, then pooling what entered."""
    first = [F.linear(x, state["network.0.weight"], state["network.0.bias"]) for x in batches]
    normal = [(x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt() for x in first]
    hidden = [(x * state["network.1.weight"] + state["network.1.bias"]).relu() for x in normal]
    second = [F.linear(x, state["network.4.weight"], state["network.4.bias"]) for x in hidden]
    pooled = {"network.1": torch.cat(first).double(), "network.5": torch.cat(second).double()}
    means = {f"{name}.running_mean": x.mean(0).float() for name, x in pooled.items()}
    return {**means, **{f"{name}.running_var": x.var(0, correction=0).float() for name, x in pooled.items()}}


def statistics(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if "running" in name}


@pytest.mark.parametrize(("num_samples", "batches"), [(1, 1), (8, 2), (9, 3), (1000, 6)])
@pytest.mark.parametrize("averaging", [True, False])
def test_validated_and_saved_are_the_statistics_of_the_slow_twin(
    tmp_path: Path, num_samples: int, batches: int, averaging: bool
) -> None:
    watch = Watch()
    callbacks = [PreciseBatchNorm(num_samples), watch, *([EMA(0.8)] if averaging else [])]
    run = fit(tmp_path, *callbacks, module=NoDropout())
    assert [len(seen) for seen in watch.batches] == [batches] * 3
    for state, seen in zip(run["module"].validated, watch.batches, strict=True):
        torch.testing.assert_close(statistics(state), slow_statistics(state, seen), rtol=1e-5, atol=1e-6)
    assert_same(run["checkpoint"]["state_dict"], run["module"].validated[-1])
    assert not any(part._forward_pre_hooks for part in run["module"].modules())


def test_the_order_of_callbacks_does_not_matter(tmp_path: Path) -> None:
    before = fit(tmp_path / "before", PreciseBatchNorm(16), EMA(0.8))
    after = fit(tmp_path / "after", EMA(0.8), PreciseBatchNorm(16))
    assert differences(before["module"].validated, after["module"].validated) == []


@pytest.mark.parametrize("arguments", [{}, {"val_check_interval": 0.5}], ids=["epochs", "within"])
def test_the_weights_and_their_own_statistics_are_those_of_a_run_without_it(
    tmp_path: Path, arguments: dict[str, Any]
) -> None:
    plain = fit(tmp_path / "plain", EMA(0.8), **arguments)
    precise = fit(tmp_path / "precise", EMA(0.8), PreciseBatchNorm(16), **arguments)
    assert_same(precise["checkpoint"]["current_model_state"], plain["checkpoint"]["current_model_state"])
    assert differences(precise["checkpoint"]["random_state"], plain["checkpoint"]["random_state"]) == []
    averages, plain_averages = precise["checkpoint"]["state_dict"], plain["checkpoint"]["state_dict"]
    assert_same(without_statistics(averages), without_statistics(plain_averages))
    assert len(differences(statistics(averages), statistics(plain_averages))) == 4
    assert precise["trainer"].callback_metrics["train/loss"] == plain["trainer"].callback_metrics["train/loss"]


def test_without_averages_training_goes_on_as_it_would_have(tmp_path: Path) -> None:
    plain, precise = fit(tmp_path / "plain"), fit(tmp_path / "precise", PreciseBatchNorm(16))
    state, plain_state = precise["checkpoint"]["state_dict"], plain["checkpoint"]["state_dict"]
    assert_same(without_statistics(state), without_statistics(plain_state))
    assert state["network.1.num_batches_tracked"] == plain_state["network.1.num_batches_tracked"] == 18


@pytest.mark.parametrize("averaging", [True, False])
def test_a_resumed_run_is_the_whole_run(tmp_path: Path, averaging: bool) -> None:
    class Crash(Callback):
        def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
            if trainer.global_step == 9:
                raise RuntimeError

    def callbacks() -> list[Callback]:
        return [PreciseBatchNorm(16), *([EMA(0.8)] if averaging else [])]

    whole = fit(tmp_path / "whole", *callbacks())
    with pytest.raises(RuntimeError):
        fit(tmp_path / "half", *callbacks(), Crash())
    resumed = fit(tmp_path / "half", *callbacks(), ckpt_path=tmp_path / "half" / "last.ckpt")
    names = ["state_dict", "optimizer_states", "random_state"] + ["current_model_state"] * averaging
    for name in names:
        assert differences(resumed["checkpoint"][name], whole["checkpoint"][name], name) == []
    assert differences(resumed["module"].validated, whole["module"].validated[1:]) == []


def test_both_validations_get_statistics_of_their_own(tmp_path: Path) -> None:
    watch = Watch()
    run = fit(tmp_path, PreciseBatchNorm(16), EMA(0.8, validate="both"), watch, module=NoDropout())
    for state, seen in zip(run["module"].validated, watch.batches, strict=True):
        torch.testing.assert_close(statistics(state), slow_statistics(state, seen), rtol=1e-5, atol=1e-6)
    assert len(run["module"].validated) == 6


def test_the_average_of_the_best_is_saved_with_statistics_of_its_own(tmp_path: Path) -> None:
    watch = Watch()
    run = fit(tmp_path, PreciseBatchNorm(16), BestWeightsAverage(k=2), watch, module=NoDropout())
    saved = torch.load(tmp_path / "average.ckpt", weights_only=True)["state_dict"]
    assert_same(saved, run["module"].validated[-1])
    torch.testing.assert_close(statistics(saved), slow_statistics(saved, watch.batches[-1]), rtol=1e-5, atol=1e-6)


def test_layers_that_train_in_evaluation_mode_keep_their_statistics(tmp_path: Path) -> None:
    class Frozen(Shuffled):
        def on_train_batch_start(self, *_: Any) -> None:
            self.network[1].eval()

    run = fit(tmp_path, PreciseBatchNorm(16), module=Frozen())
    state = run["checkpoint"]["state_dict"]
    assert state["network.1.running_mean"].tolist() == [0.0] * 8
    assert not torch.equal(state["network.5.running_mean"], torch.zeros(6))
    assert not run["module"].network[1].training


@pytest.mark.skipif(torch.__version__ < "2.5", reason="torch 2.4 does not call the backend here")
def test_a_compiled_network_is_measured_without_compiling_anew(tmp_path: Path) -> None:
    def run(folder: str, *callbacks: Callback) -> tuple[dict[str, Any], int]:
        graphs: list[Any] = []

        def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
            graphs.append(graph)
            return graph.forward

        module = NoDropout()
        module.network.compile(backend=backend)
        state = fit(tmp_path / folder, *callbacks, module=module)["checkpoint"]["state_dict"]
        assert module.network._compiled_call_impl is not None
        torch._dynamo.reset()
        return state, len(graphs)

    _, without = run("without")
    state, graphs = run("with", PreciseBatchNorm(16))
    assert graphs == without > 0
    eager = fit(tmp_path / "eager", PreciseBatchNorm(16), module=NoDropout())["checkpoint"]["state_dict"]
    torch.testing.assert_close(state, eager)


def test_a_resumed_epoch_is_measured_on_the_samples_of_the_whole_one() -> None:
    shapes = ShapesDataset(num_images=8, image_size=64)
    data = DetectionDataModule(train=shapes, image_size=32, batch_size=2, num_workers=0)
    whole = [batch.dataset_indices for batch in data.train_dataloader()]
    loader = data.train_dataloader()
    loader.load_state_dict({"epoch": 0, "samples": 4})
    assert [batch.dataset_indices for batch in _copy_of(loader)] == whole
    assert [batch.dataset_indices for batch in loader] == whole[2:]


def test_a_step_that_breaks_leaves_everything_as_it_was(tmp_path: Path) -> None:
    class Breaks(Shuffled):
        def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
            loss = super().training_step(batch, batch_idx)
            if not torch.is_grad_enabled():
                raise ZeroDivisionError
            self.kept = weights(self)
            return loss

    module = Breaks()
    with pytest.raises(ZeroDivisionError):
        fit(tmp_path, PreciseBatchNorm(16), module=module)
    assert_same(statistics(weights(module)), statistics(module.kept))
    assert "log" not in vars(module)
    assert not any(part._forward_pre_hooks for part in module.modules())


# ------------------------------------------------------------------------------------------------------ refusals
def test_no_samples_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="num_samples=0 is too small"):
        PreciseBatchNorm(0)


def test_a_module_without_batch_norm_is_refused(tmp_path: Path) -> None:
    module = TinyModule()
    module.network[1] = nn.Identity()
    with pytest.raises(ConfigurationError, match="no batch norm in TinyModule"):
        quiet_trainer(tmp_path, callbacks=[PreciseBatchNorm()]).fit(module)


def test_a_stream_is_refused(tmp_path: Path) -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter(TinyModule()._loader().dataset)

    module = TinyModule()
    module.train_dataloader = lambda: DataLoader(Stream(), batch_size=2)  # type: ignore[method-assign]
    trainer = quiet_trainer(tmp_path, callbacks=[PreciseBatchNorm()], enable_checkpointing=False)
    with pytest.raises(ConfigurationError, match="cannot read ahead in DataLoader"):
        trainer.fit(module)


# -------------------------------------------------------------------------------------------------- distributed
class TwoRanks(NoDropout):
    """Each rank sees its own half, and writes down what it validated with."""

    folder = Path()

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(Samples().rows), batch_size=4)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if not torch.is_grad_enabled():
            torch.save(batch[0], self.folder / f"batch{self.global_rank}_{batch_idx}.pt")
        return super().training_step(batch[0], batch_idx)

    def on_validation_epoch_end(self) -> None:
        torch.save(self.validated[-1], self.folder / f"seen{self.global_rank}.pt")


@pytest.mark.distributed
def test_all_ranks_have_the_statistics_of_all_ranks(tmp_path: Path) -> None:
    module = TwoRanks()
    module.folder = tmp_path
    callbacks = [PreciseBatchNorm(16), EMA(0.8), *Checkpoint(dirpath=tmp_path).callbacks()]
    quiet_trainer(tmp_path, callbacks=callbacks, devices=2, strategy="ddp_fork").fit(module)
    first, second = (torch.load(tmp_path / f"seen{rank}.pt", weights_only=True) for rank in range(2))
    assert_same(first, second)
    batches = [torch.load(path, weights_only=True) for path in sorted(tmp_path.glob("batch*.pt"))]
    assert len(batches) == 2 * math.ceil(16 / 8)
    torch.testing.assert_close(statistics(first), slow_statistics(first, batches), rtol=1e-5, atol=1e-6)
    assert_same(torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"], first)
