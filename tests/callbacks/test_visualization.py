"""Pictures of training: what they show, where they go, and that training does not notice."""

import random
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from detlit import EMA, DetectionVisualization
from detlit.callbacks import visualization as home
from detlit.callbacks.image_loggers import log_image
from detlit.callbacks.samples import BatchSample, statistic
from detlit.callbacks.watching import Extreme
from detlit.data.transforms import BatchHSV, HorizontalFlip, Mosaic
from detlit.errors import ConfigurationError
from detlit.module import DetectionModule
from detlit.reports.batches import batch_picture
from detlit.structures import Detection, Target
from tests.callbacks.tiny import assert_same, weights
from tests.shapes_detector import CHECKPOINT, shapes_data
from tests.test_module import TorchvisionStyle, make_trainer, shapes, shapes_module, to_lists


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return what is drawn, as (images, class names, title, heads), besides drawing it."""
    calls: list[Any] = []
    draw = batch_picture

    def spy(*call: Any) -> Any:
        calls.append(call)
        return draw(*call)

    monkeypatch.setattr(home, "batch_picture", spy)
    return calls


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "pictures").iterdir())


def fit(folder: Path, *callbacks: Any, module: Any = None, data: Any = None, **arguments: Any) -> None:
    data = shapes() if data is None else data
    module = shapes_module(data) if module is None else module
    make_trainer(folder, callbacks=list(callbacks), **arguments).fit(module, data)


# ------------------------------------------------------------------------------------------ training goes on as ever
class Dropping(DetectionModule):
    """Draws random numbers in every step, from each of the three generators."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        noise = torch.rand(()) + random.random() + float(np.random.rand())  # noqa: NPY002
        return super().training_step(batch, batch_idx) * noise

    def forward(self, images: Tensor) -> list[Detection]:
        torch.rand(3), random.random(), np.random.rand()  # noqa: NPY002
        return super().forward(images)


@pytest.mark.parametrize("monitor", ["train/loss", "val/loss", "val/map_50"])
def test_weights_statistics_and_random_numbers_are_the_same_to_the_bit(monitor: str, tmp_path: Path) -> None:
    outcomes = []
    for name in ("off", "on"):
        for seed in (torch.manual_seed, random.seed, np.random.seed):
            seed(7)
        pictures = [DetectionVisualization((0, 1), 2, 1, monitor=monitor)] if name == "on" else []
        data = shapes(augmentations=[Mosaic(), HorizontalFlip(), BatchHSV()])
        module = Dropping(shapes_module(data).detector, class_names=data.class_names, freeze=["backbone.stem"])
        trainer = make_trainer(tmp_path / name, callbacks=[EMA(0.9), *pictures], max_epochs=3)
        trainer.fit(module, data)
        state = weights(module)
        state["random"] = torch.tensor([torch.rand(()), random.random(), np.random.rand()])  # noqa: NPY002
        state["scores"] = torch.tensor([float(value) for _, value in sorted(trainer.callback_metrics.items())])
        outcomes.append(state)
        assert not any(part._forward_hooks for part in module.modules())
    assert (tmp_path / "on" / "pictures").exists()
    assert_same(*outcomes)


def test_every_part_keeps_its_mode() -> None:
    module = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout())
    module[0].eval()
    with home._evaluating(module):
        assert not module[1].training
    assert [part.training for part in (module, *module)] == [True, False, True]


def test_validation_pictures_cost_no_forward_pass(tmp_path: Path) -> None:
    module = shapes_module(shapes())
    calls: list[int] = []
    module.detector.register_forward_hook(lambda *_: calls.append(1))
    fit(tmp_path, DetectionVisualization((), monitor="val/map"), module=module)
    assert len(calls) == 2 + 2 + 2  # sanity check, training, validation


# -------------------------------------------------------------------------------------------------- what is drawn
def test_training_batches_are_those_the_model_sees(drawn: list[Any], tmp_path: Path) -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    class Noting(DetectionModule):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            seen.append((batch.images.clone(), batch.boxes.clone()))
            return super().training_step(batch, batch_idx)

    data = shapes(augmentations=[Mosaic(), BatchHSV()])
    module = Noting(shapes_module(data).detector, class_names=data.class_names)
    visualization = DetectionVisualization((1,), train_batches=2, monitor=None, num_images=3)
    fit(tmp_path, visualization, module=module, data=data, max_epochs=3, limit_val_batches=0)
    assert names_in(tmp_path) == ["train_epoch_1_batch_0.jpg", "train_epoch_1_batch_1.jpg"]
    for (shown, names, title, _), (images, boxes), number in zip(drawn, seen[2:4], (0, 1), strict=True):
        assert len(shown) == 3
        for one, image in zip(shown, images, strict=False):
            assert (one.image == image.permute(1, 2, 0).numpy()).all()
        drawn_boxes = np.concatenate([one.halves[0].xyxy for one in shown])
        np.testing.assert_array_equal(drawn_boxes, boxes[: len(drawn_boxes)].numpy())
        assert tuple(names) == data.class_names
        assert title == f"training batch {number} of epoch 1, as the model sees it"


def trained(**options: Any) -> tuple[DetectionModule, Any]:
    """Return a detector that finds something, which does not learn any more, and its data."""
    module = DetectionModule.load_from_checkpoint(CHECKPOINT)
    module.optimizer = lambda parameters: torch.optim.SGD(parameters, lr=0.0)
    return module, shapes_data(val=16)


def test_predictions_stand_beside_the_ground_truth_of_the_first_images(drawn: list[Any], tmp_path: Path) -> None:
    module, data = trained()
    visualization = DetectionVisualization((), monitor=None, num_images=5, max_boxes=3, score_threshold=0.2)
    fit(tmp_path, visualization, module=module, data=data, limit_train_batches=1)
    ((shown, _, title, heads),) = drawn
    assert (len(shown), heads) == (5, ("objects", "detections"))
    assert title == "validation at step 1 (epoch 0), score > 0.20"
    expected = module.eval()(next(iter(data.val_dataloader())).images)
    for one, detection, target in zip(shown, expected, next(iter(data.val_dataloader())).targets, strict=False):
        truth, found = one.halves
        np.testing.assert_array_equal(truth.xyxy, target["boxes"].numpy())
        assert found.scores is not None
        above = int((detection["scores"] > 0.2).sum())
        assert (len(found.scores), found.total) == (min(3, above), above)
        np.testing.assert_allclose(found.scores, detection["scores"][: len(found.scores)].detach(), atol=1e-3)
    assert any(one.halves[1].labels for one in shown)


def test_the_threshold_is_the_one_validation_has_just_chosen(drawn: list[Any], tmp_path: Path) -> None:
    module, data = trained()
    module.score_threshold = None
    fit(tmp_path, DetectionVisualization((), monitor=None), module=module, data=data, limit_train_batches=1)
    assert drawn[0][2].endswith(f"score > {module.score_threshold:.2f}")
    assert module.score_threshold != 0.25
    drawn.clear()
    blank = shapes_module(shapes())
    fit(tmp_path, DetectionVisualization((), monitor=None), module=blank, limit_train_batches=1)
    assert blank.score_threshold is None
    assert drawn[0][2].endswith("score > 0.25")


@pytest.mark.parametrize(
    ("every", "val", "worst"),
    [(1, [2, 4, 6], [2, 4, 6]), (2, [2, 6], [2, 6]), (5, [2, 6], [2, 6])],
)
def test_pictures_come_every_so_many_epochs_and_at_the_end(
    every: int, val: list[int], worst: list[int], tmp_path: Path
) -> None:
    fit(tmp_path, DetectionVisualization((), every_n_epochs=every), max_epochs=3)
    expected = [f"val_step_{step}.jpg" for step in val] + [f"worst_train_loss_step_{step}.jpg" for step in worst]
    assert names_in(tmp_path) == sorted(expected)


def test_padding_around_validation_images_is_left_out(drawn: list[Any], tmp_path: Path) -> None:
    data = shapes(image_size=(128, 64))
    fit(tmp_path, DetectionVisualization((), monitor=None), data=data, limit_train_batches=1)
    assert {one.image.shape for one in drawn[0][0]} == {(64, 64, 3)}
    boxes = np.concatenate([one.halves[0].xyxy for one in drawn[0][0]])
    assert boxes.min() >= 0
    assert boxes.max() <= 64


# ------------------------------------------------------------------------------------------------- the worst batch
@pytest.mark.parametrize(("mode", "choose"), [("worst", np.argmax), ("best", np.argmin)])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_worst_batch_is_the_one_of_the_greatest_loss(
    mode: Any, choose: Any, accumulate: int, drawn: list[Any], tmp_path: Path
) -> None:
    seen: list[tuple[float, Tensor]] = []

    class Noting(DetectionModule):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            loss = super().training_step(batch, batch_idx)
            seen.append((loss.item(), batch.images.clone()))
            return loss

    data = shapes(batch_size=1)
    module = Noting(shapes_module(data).detector, class_names=data.class_names)
    visualization = DetectionVisualization((), mode=mode)
    fit(tmp_path, visualization, module=module, data=data, limit_val_batches=0, accumulate_grad_batches=accumulate)
    ((shown, _, title, _),) = drawn
    row = int(choose([loss for loss, _ in seen]))
    assert title.startswith(f"{mode} batch of epoch 0: train/loss {seen[row][0]:.3f} (batch {row}, ")
    assert (shown[0].image == seen[row][1][0].permute(1, 2, 0).numpy()).all()
    assert len(shown[0].halves) == 2
    assert names_in(tmp_path) == [f"{mode}_train_loss_step_{8 // accumulate}.jpg"]


@pytest.mark.parametrize(("monitor", "choose"), [("val/loss", np.argmax), ("val/map", np.argmin)])
def test_the_worst_validation_batch_by_loss_or_metric(
    monitor: str, choose: Any, drawn: list[Any], tmp_path: Path
) -> None:
    module, data = trained()
    data.val_batch_size = 2
    fit(tmp_path, DetectionVisualization((), monitor=monitor), module=module, data=data, limit_train_batches=1)
    values = []
    module.eval()
    for batch in data.val_dataloader():
        with torch.no_grad():
            if monitor == "val/loss":
                values.append(float(module.loss(module.detector(batch.images), batch).total))
            else:
                values.append(statistic(module(batch.images), batch.targets, "map"))
    assert len({round(value, 3) for value in values}) > 4
    row = int(choose(values))
    title = drawn[-1][2]
    assert title.startswith(f"worst batch of epoch 0: {monitor} {values[row]:.3f} (batch {row}, step 1)")


def test_a_statistic_of_a_few_images() -> None:
    box, far = torch.tensor([[10.0, 10.0, 60.0, 60.0]]), torch.tensor([[70.0, 70.0, 90.0, 90.0]])
    label, score = torch.tensor([1]), torch.tensor([0.9])
    target, none = Target(boxes=box, labels=label), Target(boxes=box[:0], labels=label[:0])
    right, wrong = (Detection(boxes=boxes, scores=score, labels=label) for boxes in (box, far))
    assert statistic([right], [target], "map") == pytest.approx(1.0)
    assert statistic([wrong], [target], "map_50") == 0.0
    assert statistic([right, wrong], [target, target], "mar_100") == pytest.approx(0.5)
    assert statistic([right], [none], "map") == -1


def test_an_extreme_forgets_what_was_taken_and_passes_over_nan() -> None:
    def sample(number: int) -> Any:
        return BatchSample(torch.full((1, 3, 2, 2), number), [], None, number, 0, 0)

    extreme = Extreme(greatest=True)
    for number, value in enumerate([1.0, 3.0, float("nan"), 2.0]):
        extreme.offer(torch.tensor(value), sample(number))
    value, found = extreme.take()
    assert found is not None
    assert (value, found.step) == (3.0, 1)
    assert extreme.take()[1] is None


# --------------------------------------------------------------------------------------------------- other modules
class Foreign(LightningModule):
    """Learns from float images in lists, returns its loss, and detects one box in each image."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 1, 1)

    def forward(self, images: Tensor) -> Any:
        box = torch.tensor([[10.0, 10.0, 30.0, 30.0]])
        return [{"boxes": box, "scores": torch.tensor([0.5]), "labels": torch.tensor([1])} for _ in images]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss: Tensor = self.layer(torch.stack(batch[0])).square().mean()
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        return {"loss": torch.tensor([0.5, 0.75][batch_idx])}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit_foreign(folder: Path, module: LightningModule, visualization: DetectionVisualization) -> None:
    loader: DataLoader[Any] = DataLoader(TorchvisionStyle(), batch_size=2, collate_fn=to_lists)
    make_trainer(folder, callbacks=[visualization], num_sanity_val_steps=0).fit(module, loader, loader)


def test_any_module_that_returns_detections_is_drawn(drawn: list[Any], tmp_path: Path) -> None:
    visualization = DetectionVisualization(monitor="val/loss", class_names=["cat", "dog"])
    fit_foreign(tmp_path, Foreign(), visualization)
    assert names_in(tmp_path) == ["train_epoch_0_batch_0.jpg", "val_step_2.jpg", "worst_val_loss_step_2.jpg"]
    assert [one.halves[1].labels for one in drawn[1][0]] == [[1]] * 4
    assert drawn[1][1] == ["cat", "dog"]
    assert "val/loss 0.750 (batch 1" in drawn[2][2]


def test_a_module_that_returns_something_else_is_drawn_without_detections(drawn: list[Any], tmp_path: Path) -> None:
    class Silent(Foreign):
        def forward(self, images: Tensor) -> Any:
            return self.layer(images)

    with pytest.warns(UserWarning, match=r"Silent\.forward returns no detections"):
        fit_foreign(tmp_path, Silent(), DetectionVisualization())
    assert all(len(one.halves) == 1 for shown, *_ in drawn for one in shown)
    assert len(drawn) == 3


def test_other_batches_are_refused(tmp_path: Path) -> None:
    class Strange(Foreign):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            loss: Tensor = self.layer(batch).mean()
            return loss

    loader: DataLoader[Any] = DataLoader([torch.rand(3, 8, 8)] * 2, batch_size=2)  # type: ignore[arg-type]
    trainer = make_trainer(tmp_path, callbacks=[DetectionVisualization()], limit_val_batches=0)
    with pytest.raises(ConfigurationError, match="cannot draw a batch of type Tensor: yield a detlit Batch"):
        trainer.fit(Strange(), loader)


# ----------------------------------------------------------------------------------------------------- destinations
class Reporter(Logger):
    """A logger of one's own: two methods for numbers, a third for pictures."""

    name, version = "reporter", 0

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.seen.append((step, dict(metrics)))

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        pass

    def log_image(self, key: str, images: list[Any], step: int) -> None:
        self.seen.append((step, key, images[0].shape))


def test_loggers_get_pictures_and_files_can_be_left_out(tmp_path: Path) -> None:
    reporter, board = Reporter(), TensorBoardLogger(tmp_path, name="board")
    loggers = [CSVLogger(tmp_path), board, reporter]
    fit(tmp_path, DetectionVisualization(files=False), logger=loggers, log_every_n_steps=1)
    assert not list(tmp_path.rglob("*.jpg"))
    pictures = [entry[:2] for entry in reporter.seen if len(entry) == 3]
    assert pictures == [(0, "pictures/train"), (2, "pictures/val"), (2, "pictures/worst_train_loss")]
    assert any("train/loss" in entry[1] for entry in reporter.seen)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

    events = EventAccumulator(board.log_dir).Reload()
    assert set(events.Tags()["images"]) == {tag for _, tag in pictures}
    reporter.seen.clear()
    fit(tmp_path, DetectionVisualization(loggers=False), logger=reporter)
    assert not [entry for entry in reporter.seen if len(entry) == 3]
    assert len(list(tmp_path.rglob("*.jpg"))) == 3


def test_mlflow_gets_a_file_of_the_run_and_a_logger_without_pictures_nothing() -> None:
    calls: list[Any] = []
    client = SimpleNamespace(log_image=lambda *given, **named: calls.append((*given, named)))
    image = np.zeros((2, 2, 3), np.uint8)
    assert log_image(SimpleNamespace(experiment=client, run_id="7"), "pictures/val", image, 5)  # type: ignore[arg-type]
    assert calls == [("7", image, {"artifact_file": "pictures/val/step_5.png"})]
    assert not log_image(SimpleNamespace(experiment=object()), "pictures/val", image, 5)  # type: ignore[arg-type]


def test_files_are_readable_pictures_in_the_run_folder(tmp_path: Path) -> None:
    fit(tmp_path, DetectionVisualization(), logger=CSVLogger(tmp_path, name=""))
    folder = tmp_path / "version_0"
    assert names_in(folder) == ["train_epoch_0_batch_0.jpg", "val_step_2.jpg", "worst_train_loss_step_2.jpg"]
    for name in names_in(folder):
        picture = cv2.imread(str(folder / "pictures" / name))
        assert picture is not None
        assert min(picture.shape[:2]) > 200


def test_a_smoke_test_and_an_evaluation_draw_nothing(tmp_path: Path) -> None:
    fit(tmp_path, DetectionVisualization(), fast_dev_run=True)
    data = shapes()
    make_trainer(tmp_path, callbacks=[DetectionVisualization()]).validate(shapes_module(data), data, verbose=False)
    assert not (tmp_path / "pictures").exists()


@pytest.mark.distributed
def test_the_first_of_two_processes_draws(tmp_path: Path) -> None:
    visualization = DetectionVisualization(monitor="val/map")
    fit(tmp_path, visualization, strategy="ddp_fork", devices=2)
    assert names_in(tmp_path) == ["train_epoch_0_batch_0.jpg", "val_step_1.jpg", "worst_val_map_step_1.jpg"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"train_batches": -1}, "train_batches=-1 is too small: choose 0 or more"),
        ({"every_n_epochs": 0}, "every_n_epochs=0 is too small"),
        ({"num_images": 0}, "num_images=0 is too small"),
        ({"max_boxes": 0}, "max_boxes=0 is too small"),
        (
            {"monitor": "val/f1"},
            "monitor='val/f1' is not known of single batches: choose one of train/loss, val/loss",
        ),
        ({"mode": "max"}, "mode='max' is unknown: choose 'worst' or 'best'"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        DetectionVisualization(**arguments)
