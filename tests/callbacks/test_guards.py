import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor

from detlit import DetectionDataModule, DetectionModule, ShapesDataset
from detlit.callbacks import LearningGuard, NonFiniteGuard, OutOfMemoryHelp
from detlit.data.collation import collate
from detlit.errors import ConfigurationError, TrainingError
from detlit.structures import Target
from tests.callbacks.tiny import TinyModule, quiet_trainer, weights
from tests.tiny import tiny_detector


class Sick(TinyModule):
    """A module with a poisoned input or loss in some of its 8 batches per epoch."""

    def __init__(self, bad: set[int], how: str = "input", lr: float = 0.02) -> None:
        super().__init__()
        self.bad, self.how, self.lr = bad, how, lr

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        inputs, outputs = batch
        if batch_idx in self.bad and self.how == "input":
            inputs = inputs * float("nan")
        loss = super().training_step((inputs, outputs), batch_idx)
        return loss * float(self.how) if batch_idx in self.bad and self.how != "input" else loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9, weight_decay=0.1)


class OnADevice(NonFiniteGuard):
    """Looks as rarely as on an accelerator."""

    def _looking_is_free(self, device: torch.device) -> bool:
        return False


class States(Callback):
    """Keeps the weights after each step."""

    def __init__(self) -> None:
        self.after: list[dict[str, Tensor]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.after.append(weights(pl_module))


def fit(folder: Path, module: TinyModule, *callbacks: Callback, **arguments: Any) -> None:
    quiet_trainer(folder, callbacks=list(callbacks), enable_checkpointing=False, **arguments).fit(module)


@pytest.mark.parametrize("how", ["input", "nan", "inf"])
def test_a_step_that_is_not_finite_changes_neither_weights_nor_statistics(tmp_path: Path, how: str) -> None:
    guard, states = NonFiniteGuard(), States()
    with pytest.warns(UserWarning, match=r"Step 3: 1 gradient\(s\) were not finite"):
        fit(tmp_path, Sick({3}, how), guard, states)
    floats = [name for name, value in states.after[0].items() if value.is_floating_point()]
    assert all(torch.equal(states.after[3][name], states.after[2][name]) for name in floats)
    assert not any(torch.equal(states.after[4][name], states.after[3][name]) for name in floats)
    assert all(value.isfinite().all() for value in states.after[-1].values())
    assert (guard.dropped, guard.looks) == (1, 8)
    lines = (tmp_path / "non_finite_0.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 3, "epoch": 0, "images": ["batch 3"]}]


def test_without_the_guard_the_weights_are_lost(tmp_path: Path) -> None:
    module = Sick({3})
    fit(tmp_path, module)
    assert module.network[0].weight.isnan().any()


def test_it_stops_after_so_many_in_a_row(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="3 steps in a row had gradients"):
        fit(tmp_path, Sick({0, 1, 3, 4, 5}), NonFiniteGuard(stop_after=3))
    assert len((tmp_path / "non_finite_0.jsonl").read_text().splitlines()) == 5


@pytest.mark.parametrize(("every", "looks"), [(4, 4), (8, 2), (3, 5)])
def test_on_a_device_it_waits_once_in_n_steps_and_the_weights_stay_finite(
    tmp_path: Path, every: int, looks: int
) -> None:
    guard, module = OnADevice(check_every_n_steps=every), Sick({1, 2})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(tmp_path, module, guard, max_epochs=2)
    assert guard.looks == looks
    assert guard.dropped == 4
    assert all(value.isfinite().all() for value in module.state_dict().values())


def test_the_images_of_a_detection_batch_are_named(tmp_path: Path) -> None:
    class Broken(DetectionModule):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return super().training_step(batch, batch_idx) * float("nan")

    data = DetectionDataModule(
        train=ShapesDataset(num_images=4, image_size=64), image_size=64, batch_size=2, num_workers=0
    )
    trainer = quiet_trainer(tmp_path, callbacks=[NonFiniteGuard(stop_after=2)], enable_checkpointing=False)
    with pytest.raises(TrainingError):
        trainer.fit(Broken(tiny_detector(data.num_classes)), data)
    records = [json.loads(line) for line in (tmp_path / "non_finite_0.jsonl").read_text().splitlines()]
    assert sorted(image for record in records for image in record["images"]) == [0, 1, 2, 3]


def messages(folder: Path, module: TinyModule, guard: LearningGuard, **arguments: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(folder, module, guard, **arguments)
    said = [str(warning.message) for warning in caught]
    return [message for message in said if "batches" in message or "last batch" in message]


class Constant(Sick):
    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return 0.0 * super().training_step(batch, batch_idx) + 2.5


def test_a_constant_loss_is_reported_once_with_its_cause(tmp_path: Path) -> None:
    guard = LearningGuard(every_n_steps=4)
    (message,) = messages(tmp_path, Constant(set()), guard, max_epochs=2)
    assert message.startswith("The loss has been exactly 2.5 for 4 batches, likely because nothing that is trained")
    assert guard.looks == 4
    (message,) = messages(tmp_path, Constant(set(), lr=0.0), LearningGuard(every_n_steps=4))
    assert "the learning rate is 0" in message
    assert messages(tmp_path, TinyModule(), LearningGuard(every_n_steps=4)) == []


class Pipeline(TinyModule):
    """Batches as torchvision's pipelines have them, with or without objects, of a loss whose box term is 0."""

    def __init__(self, objects: int) -> None:
        super().__init__()
        self.objects = objects

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step((batch[0], batch[0].sum(1, keepdim=True)), batch_idx)
        self.log("train/loss_iou", 0.0)
        return loss

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch[0], [{"boxes": torch.zeros(self.objects, 4)} for _ in batch[0]]


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        (0, "The last 4 batches had no object: check that the annotations are read"),
        (
            3,
            "None of the 6 objects of the last batch may have matched a prediction, as train/loss_iou is 0: check that "
            "boxes are xyxy, not xywh or normalised, in pixels of the images of the batch.",
        ),
    ],
)
def test_objects_that_are_missing_or_match_nothing_are_reported(tmp_path: Path, objects: int, message: str) -> None:
    (said,) = messages(tmp_path, Pipeline(objects), LearningGuard(every_n_steps=4), limit_val_batches=0)
    assert said.startswith(message)


def test_the_data_module_takes_boxes_in_pixels_of_their_own_image(tmp_path: Path) -> None:
    """Its batches are in pixels of the network input, which no annotation is."""

    class Batches(Pipeline):
        def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            image = torch.zeros(3, 64, 64, dtype=torch.uint8)
            target = Target(boxes=torch.tensor([[1.0, 2.0, 30.0, 40.0]]), labels=torch.tensor([0]))
            return collate([(image, target)] * len(batch[0]))

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            inputs = torch.randn(2, 4)
            return super().training_step((inputs, None), batch_idx)

    (said,) = messages(tmp_path, Batches(1), LearningGuard(every_n_steps=4), limit_val_batches=0)
    assert said.startswith("None of the 2 objects of the last batch")
    assert said.endswith("in pixels of their own image, before any resizing.")


def test_a_last_batch_without_objects_is_no_sign_of_wrong_boxes(tmp_path: Path) -> None:
    class Mixed(Pipeline):
        def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            self.objects = 3 - self.objects
            return super().on_before_batch_transfer(batch, dataloader_idx)

    module = Mixed(0)  # every second batch, the last of four as well, is empty
    assert messages(tmp_path, module, LearningGuard(every_n_steps=4), limit_val_batches=0) == []


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail] can't allocate memory"),
        MemoryError(),
    ],
)
def test_memory_that_runs_out_is_explained(tmp_path: Path, error: Exception) -> None:
    class Hungry(DetectionModule):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            self.objects = sum(batch.counts)
            raise error

    data = DetectionDataModule(
        train=ShapesDataset(num_images=4, image_size=64), image_size=64, batch_size=2, num_workers=0
    )
    module = Hungry(tiny_detector(data.num_classes))
    trainer = quiet_trainer(tmp_path, callbacks=[OutOfMemoryHelp()], enable_checkpointing=False)
    with pytest.raises(type(error)) as raised:
        trainer.fit(module, data)
    expected = f"training batch 0 of shape (2, 3, 64, 64) with {module.objects} objects does not fit into memory: lower"
    assert str(raised.value).startswith(expected)


def test_other_errors_are_left_alone(tmp_path: Path) -> None:
    module = TinyModule()
    module.on_step = lambda: (_ for _ in ()).throw(RuntimeError("something else"))
    with pytest.raises(RuntimeError, match=r"^something else$"):
        fit(tmp_path, module, OutOfMemoryHelp())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NonFiniteGuard(stop_after=0), "stop_after=0 is too small"),
        (lambda: NonFiniteGuard(check_every_n_steps=0), "check_every_n_steps=0 is too small"),
        (lambda: LearningGuard(every_n_steps=1), "every_n_steps=1 compares nothing"),
    ],
)
def test_bad_arguments_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make()
