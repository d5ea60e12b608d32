"""The training module through Lightning's Trainer."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

from detlit import (
    CocoDataset,
    DetectionDataModule,
    DetectionModule,
    Preprocessing,
    ShapesDataset,
    WarmupCosine,
    ppyoloe_s,
    yolo_nas_n,
)
from detlit.errors import CheckpointError, ConfigurationError
from detlit.structures import Detection, Target
from tests.oracle import Oracle, write_grey_images
from tests.tiny import tiny_detector


def make_trainer(folder: Path, **overrides: Any) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return Trainer(**{"default_root_dir": folder, "max_epochs": 1, "enable_checkpointing": False, **quiet, **overrides})


def shapes(**overrides: Any) -> DetectionDataModule:
    images = {"num_images": 8, "image_size": 64}
    arguments = {"image_size": 64, "batch_size": 4, "num_workers": 0, **overrides}
    return DetectionDataModule(train=ShapesDataset(**images), val=ShapesDataset(**images, seed=1), **arguments)


def shapes_module(data: DetectionDataModule, **overrides: Any) -> DetectionModule:
    return DetectionModule(tiny_detector(data.num_classes), class_names=data.class_names, **overrides)


def oracle_data(root: Path, batch_size: int) -> DetectionDataModule:
    dataset = CocoDataset("instances.json", "images", root=str(root))
    return DetectionDataModule(val=dataset, test=dataset, image_size=(128, 96), batch_size=batch_size, num_workers=0)


def oracle_module(root: Path, data: DetectionDataModule) -> DetectionModule:
    detector = Oracle(str(root / "instances.json"), data.num_classes)
    return DetectionModule(detector, class_names=data.class_names, preprocessing=data.preprocessing)


@pytest.mark.parametrize("batch_size", [1, 3, 4, 8])
def test_a_perfect_detector_scores_exactly_one(batch_size: int, tmp_path: Path) -> None:
    write_grey_images(tmp_path)
    data = oracle_data(tmp_path, batch_size)
    (scores,) = make_trainer(tmp_path).validate(oracle_module(tmp_path, data), data, verbose=False)
    assert scores["val/map"] == scores["val/map_50"] == scores["val/map_75"] == 1.0


@pytest.mark.distributed
@pytest.mark.parametrize("batch_size", [1, 3, 4, 8])
def test_a_perfect_detector_scores_exactly_one_on_two_processes(batch_size: int, tmp_path: Path) -> None:
    write_grey_images(tmp_path / "data")
    data = oracle_data(tmp_path / "data", batch_size)
    module = oracle_module(tmp_path / "data", data)
    trainer = make_trainer(tmp_path, strategy="ddp_fork", devices=2)
    (scores,) = trainer.validate(module, data, verbose=False)
    assert scores["val/map"] == 1.0


def test_false_positives_on_images_without_objects_count(tmp_path: Path) -> None:
    write_grey_images(tmp_path)
    data = oracle_data(tmp_path, 4)
    module = oracle_module(tmp_path, data)
    module.detector.objects[2] = [(1, [4.0, 4.0, 40.0, 40.0])]  # the third image has none
    (scores,) = make_trainer(tmp_path).validate(module, data, verbose=False)
    assert scores["val/map"] < 1.0


def test_predict_returns_original_pixels_and_calling_returns_network_pixels(tmp_path: Path) -> None:
    write_grey_images(tmp_path)
    data = oracle_data(tmp_path, 4)
    module = oracle_module(tmp_path, data)
    batches = make_trainer(tmp_path).predict(module, data)
    detections = [detection for batch in batches for detection in batch]
    assert len(detections) == 10
    found = detections[1]["boxes"][detections[1]["labels"] == 1][0]
    torch.testing.assert_close(found, torch.tensor([4.5, 6.25, 35.5, 47.75]), atol=0.05, rtol=0)
    data.setup("predict")
    in_network = module(next(iter(data.predict_dataloader())).images)
    assert not torch.allclose(in_network[1]["boxes"], detections[1]["boxes"])


def test_several_validation_loaders_have_their_own_keys(tmp_path: Path) -> None:
    write_grey_images(tmp_path)
    data = oracle_data(tmp_path, 4)
    module = oracle_module(tmp_path, data)
    data.setup("validate")
    loader = data.val_dataloader()
    half = DataLoader(torch.utils.data.Subset(loader.dataset, [2, 5]), batch_size=2, collate_fn=loader.collate_fn)
    merged: dict[str, float] = {}
    for scores in make_trainer(tmp_path).validate(module, [loader, half], verbose=False):
        merged.update(scores)
    assert merged["val/map"] == 1.0
    assert merged["val_1/map"] == -1.0  # two images without objects: nothing to measure


class TorchvisionStyle(torch.utils.data.Dataset[tuple[torch.Tensor, Target]]):
    """What a foreign pipeline yields: float images, and dicts with boxes and labels alone."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[torch.Tensor, Target]:
        boxes = torch.tensor([[8.0, 8.0, 40.0, 48.0]])[: index % 2]
        return torch.rand(3, 64, 64), Target(boxes=boxes, labels=torch.ones(len(boxes), dtype=torch.int64))


def test_a_foreign_pipeline_trains_and_validates(tmp_path: Path) -> None:
    loader = DataLoader(TorchvisionStyle(), batch_size=2, collate_fn=to_lists)
    trainer = make_trainer(tmp_path)
    trainer.fit(DetectionModule(tiny_detector()), loader, loader)
    assert {"train/loss", "train/loss_cls", "train/loss_iou", "train/loss_dfl", "val/map"} <= set(
        trainer.callback_metrics
    )


def test_validation_logs_the_mean_loss_of_its_images(tmp_path: Path) -> None:
    """Batches of 3, 3 and 1 image: every image weighs the same."""
    images = [TorchvisionStyle()[index] for index in range(7)]
    module = DetectionModule(tiny_detector())
    batches = [to_lists(images[start : start + 3]) for start in (0, 3, 6)]
    (logged,) = make_trainer(tmp_path).validate(module, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    module.eval()
    with torch.no_grad():
        losses = [module.loss(module.detector(torch.stack(batch)), targets) for batch, targets in batches]
    for name in ("loss_cls", "loss_iou", "loss_dfl"):
        first, second, third = (float(loss.terms[name]) for loss in losses)
        assert logged[f"val/{name}"] == pytest.approx((3 * first + 3 * second + third) / 7, rel=1e-5)
    assert logged["val/loss"] == pytest.approx(
        sum(logged[f"val/{name}"] for name in ("loss_cls", "loss_iou", "loss_dfl"))
    )


class WithoutGradient(Callback):
    """Notes the parameters that took no part in a step."""

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self.names = [name for name, value in pl_module.named_parameters() if value.grad is None]


def test_terms_sum_to_the_loss_and_every_parameter_takes_part(tmp_path: Path) -> None:
    data, unused = shapes(), WithoutGradient()
    trainer = make_trainer(tmp_path, max_steps=1, callbacks=[unused])
    trainer.fit(shapes_module(data), data)
    logged = trainer.callback_metrics
    terms = [logged[f"train/{name}"] for name in ("loss_cls", "loss_iou", "loss_dfl")]
    torch.testing.assert_close(logged["train/loss"], sum(terms))
    assert unused.names == []


@pytest.mark.parametrize("channels_last", [True, False])
def test_the_memory_format_is_a_choice(channels_last: bool, tmp_path: Path) -> None:
    data = shapes()
    module = shapes_module(data, channels_last=channels_last)
    make_trainer(tmp_path, max_steps=1).fit(module, data)
    weight = module.detector.backbone.stem.branch_3x3.conv.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) == channels_last


@pytest.mark.parametrize(
    "schedule",
    [WarmupCosine, partial(WarmupCosine, warmup_steps=1), partial(WarmupCosine, total_steps=None, final_ratio=0.5)],
    ids=["class", "left out", "None"],
)
def test_the_schedule_takes_its_length_from_the_trainer(schedule: Any, tmp_path: Path) -> None:
    data = shapes()
    module = shapes_module(data, lr_scheduler=schedule)
    trainer = make_trainer(tmp_path, max_epochs=3, accumulate_grad_batches=2)
    trainer.fit(module, data)
    scheduler = trainer.lr_scheduler_configs[0].scheduler
    assert (scheduler.total_steps, trainer.global_step, scheduler.last_epoch) == (3, 3, 3)


def test_a_schedule_without_a_length_is_left_alone(tmp_path: Path) -> None:
    data = shapes()
    module = shapes_module(data, lr_scheduler=partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5))
    trainer = make_trainer(tmp_path, max_steps=2)
    trainer.fit(module, data)
    assert trainer.lr_scheduler_configs[0].scheduler.get_last_lr()[0] == pytest.approx(0.25 * 1e-3)


def test_an_endless_run_is_refused_where_the_schedule_needs_an_end(tmp_path: Path) -> None:
    data = shapes()
    module = shapes_module(data, lr_scheduler=partial(WarmupCosine, total_steps=None))
    with pytest.raises(ConfigurationError, match="max_epochs=-1 has no end"):
        make_trainer(tmp_path, max_epochs=-1).fit(module, data)


def trained_checkpoint(folder: Path, data: DetectionDataModule, module: LightningModule) -> Path:
    trainer = make_trainer(folder)
    trainer.fit(module, data)
    path = folder / "module.ckpt"
    trainer.save_checkpoint(path)
    return path


@pytest.mark.slow
def test_a_compiled_detector_trains_to_the_same_weights_under_the_same_names(tmp_path: Path) -> None:
    data, graphs = shapes(), []

    def count(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    torch._dynamo.register_backend(count, name="count")
    states = []
    for backend in (None, "count"):
        torch.manual_seed(0)
        module = shapes_module(data, compile_backend=backend)
        make_trainer(tmp_path, max_steps=2).fit(module, data)
        states.append(torch.load(trained_checkpoint(tmp_path, data, module), weights_only=True)["state_dict"])
        assert (len(graphs) > 0) == (backend is not None)
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, msg=name)


def test_a_checkpoint_of_a_script_rebuilds_the_module_alone(tmp_path: Path) -> None:
    data = shapes()
    preprocessing = Preprocessing(size=(64, 64), mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    module = shapes_module(data, preprocessing=preprocessing, optimizer=partial(torch.optim.SGD, lr=0.01))
    path = trained_checkpoint(tmp_path, data, module)
    assert torch.load(path, weights_only=True)["detlit"]["data"]["batch_size"] == 4
    again = DetectionModule.load_from_checkpoint(path)
    assert again.class_names == tuple(data.class_names)
    assert again.preprocessing == preprocessing
    assert again.optimizer.keywords == {"lr": 0.01}
    again.to(memory_format=torch.channels_last)  # as fit left the other, which decides on the last bit
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    for left, right in zip(module.eval()(images), again.eval()(images), strict=True):
        assert torch.equal(left["boxes"], right["boxes"])
        assert torch.equal(left["scores"], right["scores"])


def test_arguments_given_on_loading_win(tmp_path: Path) -> None:
    data = shapes()
    path = trained_checkpoint(tmp_path, data, shapes_module(data))
    names = [f"thing {label}" for label in range(data.num_classes)]
    assert DetectionModule.load_from_checkpoint(path, class_names=names).class_names == tuple(names)


def test_a_checkpoint_of_other_classes_is_refused_with_a_sentence(tmp_path: Path) -> None:
    data = shapes()
    path = trained_checkpoint(tmp_path, data, shapes_module(data))
    other = DetectionModule(tiny_detector(2), class_names=["cat", "dog"])
    loader = DataLoader(FixedImages(), batch_size=2, collate_fn=to_lists)
    with pytest.raises(CheckpointError, match=r"has \d classes .* and this run 2 \(cat, dog\)"):
        make_trainer(tmp_path).validate(other, loader, ckpt_path=path, verbose=False, weights_only=True)


def test_class_names_must_fit_the_detector() -> None:
    with pytest.raises(ConfigurationError, match="2 class names for a detector with 3 classes"):
        DetectionModule(tiny_detector(3), class_names=["a", "b"])


def test_what_the_module_is_not_told_it_takes_from_the_data(tmp_path: Path) -> None:
    data = shapes()
    module = DetectionModule(tiny_detector(data.num_classes))
    make_trainer(tmp_path, max_steps=1).fit(module, data)
    assert module.class_names == tuple(data.class_names)
    assert module.preprocessing == data.preprocessing


def test_a_module_that_contradicts_the_data_is_refused(tmp_path: Path) -> None:
    data = shapes()
    names = [*data.class_names[1:], data.class_names[0]]
    with pytest.raises(ConfigurationError, match=r"build it with data\.num_classes and data\.class_names"):
        make_trainer(tmp_path).fit(DetectionModule(tiny_detector(data.num_classes), class_names=names), data)
    with pytest.raises(ConfigurationError, match=r"the data have \d classes .* and the module 2"):
        make_trainer(tmp_path).fit(DetectionModule(tiny_detector(2)), data)
    with pytest.raises(ConfigurationError, match="give both the same preprocessing"):
        make_trainer(tmp_path).fit(shapes_module(data, preprocessing=Preprocessing(size=(32, 32))), data)


def test_a_checkpoint_with_the_classes_in_another_order_is_refused(tmp_path: Path) -> None:
    data = shapes()
    path = trained_checkpoint(tmp_path, data, shapes_module(data))
    names = [*data.class_names[1:], data.class_names[0]]
    other = DetectionModule(tiny_detector(data.num_classes), class_names=names)
    loader = DataLoader(FixedImages(), batch_size=2, collate_fn=to_lists)
    with pytest.raises(CheckpointError, match="in their order"):
        make_trainer(tmp_path).validate(other, loader, ckpt_path=path, verbose=False, weights_only=True)


def test_what_a_checkpoint_cannot_record_is_refused_before_training(tmp_path: Path) -> None:
    data = shapes()
    module = shapes_module(data, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1))
    with pytest.raises(CheckpointError, match=r"DetectionModule\.optimizer holds a builtins\.function"):
        make_trainer(tmp_path).fit(module, data)


def test_an_interrupted_validation_leaves_nothing_behind(tmp_path: Path) -> None:
    write_grey_images(tmp_path)
    data = oracle_data(tmp_path, 4)
    module = oracle_module(tmp_path, data)
    nothing = Detection(boxes=torch.zeros(0, 4), scores=torch.zeros(0), labels=torch.zeros(0, dtype=torch.int64))
    truth = Target(boxes=torch.ones(1, 4), labels=torch.zeros(1, dtype=torch.int64), dataset_index=0)
    module._metric_of("val").update([nothing], [truth])
    (scores,) = make_trainer(tmp_path).validate(module, data, verbose=False)
    assert scores["val/map"] == 1.0


def test_a_plateau_schedule_that_looks_the_wrong_way_is_refused(tmp_path: Path) -> None:
    data = shapes()
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau
    with pytest.raises(ConfigurationError, match="set mode to 'max'"):
        make_trainer(tmp_path).fit(shapes_module(data, lr_scheduler=plateau), data)
    make_trainer(tmp_path).fit(shapes_module(data, lr_scheduler=partial(plateau, mode="max")), data)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_every_precision_trains_with_boxes_in_float32(precision: str, tmp_path: Path) -> None:
    data = shapes()
    trainer = make_trainer(tmp_path, precision=precision, max_steps=1)
    trainer.fit(shapes_module(data), data)
    assert torch.isfinite(trainer.callback_metrics["train/loss"])


class FixedImages(torch.utils.data.Dataset[tuple[torch.Tensor, Target]]):
    """Four seeded images with 0 to 3 objects."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[torch.Tensor, Target]:
        generator = torch.Generator().manual_seed(index)
        corners = torch.rand(index, 2, generator=generator) * 30
        boxes = torch.cat([corners, corners + 10 + 20 * torch.rand(index, 2, generator=generator)], dim=1)
        return torch.rand(3, 64, 64, generator=generator), Target(boxes=boxes, labels=torch.arange(index))


class FirstStep(Callback):
    """Trains with batch norm in eval and saves the gradients and logged values of each rank's first step."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        for layer in pl_module.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.eval()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self.gradients = {name: value.grad.clone() for name, value in pl_module.named_parameters()}

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        logged = {key: value for key, value in trainer.callback_metrics.items() if key.startswith("train/")}
        torch.save((self.gradients, logged), self.folder / f"{trainer.world_size}-{trainer.global_rank}.pt")


def train_one_step(folder: Path, devices: int) -> None:
    torch.manual_seed(0)
    module = DetectionModule(tiny_detector())
    strategy = "ddp_fork" if devices > 1 else "auto"
    trainer = make_trainer(folder, devices=devices, strategy=strategy, max_steps=1, callbacks=[FirstStep(folder)])
    trainer.fit(module, DataLoader(FixedImages(), batch_size=4 // devices, collate_fn=to_lists))


def to_lists(batch: list[tuple[torch.Tensor, Target]]) -> tuple[list[torch.Tensor], list[Target]]:
    return [image for image, _ in batch], [target for _, target in batch]


@pytest.mark.distributed
def test_two_processes_step_as_one_on_the_joint_batch(tmp_path: Path) -> None:
    """Without find_unused_parameters: every parameter takes part, on each rank, whatever its objects."""
    train_one_step(tmp_path, 2)
    train_one_step(tmp_path, 1)
    gradients, logged = torch.load(tmp_path / "1-0.pt")
    for rank in range(2):
        rank_gradients, rank_logged = torch.load(tmp_path / f"2-{rank}.pt")
        torch.testing.assert_close(rank_logged, logged, rtol=1e-5, atol=1e-6)
        largest = max(gradient.abs().max() for gradient in gradients.values())
        for name, gradient in gradients.items():
            torch.testing.assert_close(rank_gradients[name], gradient, rtol=1e-4, atol=1e-6 * float(largest))


@pytest.mark.distributed
@pytest.mark.parametrize("freeze", [[], ["backbone"]], ids=["whole", "frozen backbone"])
@pytest.mark.parametrize("preset", [yolo_nas_n, ppyoloe_s], ids=["YOLO-NAS", "PP-YOLOE"])
def test_two_processes_train_every_family_with_default_settings(preset: Any, freeze: list[str], tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, devices=2, strategy="ddp_fork", max_steps=2)
    data = shapes(batch_size=2)
    trainer.fit(DetectionModule(preset(data.num_classes), freeze=freeze), data)
    assert torch.isfinite(trainer.callback_metrics["train/loss"])
