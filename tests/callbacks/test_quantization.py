"""Training with rounding errors, through the Trainer."""

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, distributed, nn
from torch.utils.data import DataLoader, TensorDataset

from detlit import EMA, DetectionModule, QuantizationAwareTraining, WarmupCosine
from detlit.errors import CheckpointError, ConfigurationError
from detlit.export import OnnxSession, export_onnx
from detlit.models.checkpoint_entry import detector_from_checkpoint, read_checkpoint
from detlit.quantization import Quantization, calibration_batches, needs_calibration, quantize
from detlit.quantization.calibration import named_quantizers
from tests.callbacks.tiny import TinyModule, assert_same, quiet_trainer, weights
from tests.shapes_detector import calibration_images, map_of, map_of_decoded, shapes_data, shapes_detector


def make_module(lr: float = 1e-4, **arguments: Any) -> DetectionModule:
    detector = shapes_detector()
    detector.train()
    return DetectionModule(detector, optimizer=partial(torch.optim.AdamW, lr=lr), **arguments)


def make_callback(**arguments: Any) -> QuantizationAwareTraining:
    return QuantizationAwareTraining(**{"calibration_batches": 2, "calibration_batch_size": 4, **arguments})


def fit(
    folder: Path,
    callback: QuantizationAwareTraining | None = None,
    module: DetectionModule | None = None,
    callbacks: tuple[Any, ...] = (),
    ckpt_path: Path | None = None,
    **arguments: Any,
) -> DetectionModule:
    """Train on 16 images, 2 steps an epoch, without validation unless told otherwise."""
    seed_everything(0, verbose=False)
    module = module or make_module()
    callback = callback or make_callback()
    limits = {"limit_val_batches": 0, "enable_checkpointing": False, **arguments}
    trainer = quiet_trainer(folder, callbacks=[callback, *callbacks], **limits)
    trainer.fit(module, datamodule=shapes_data(train=16, val=8), ckpt_path=ckpt_path, weights_only=True)
    return module


class Watch(QuantizationAwareTraining):
    """Note the state of the schedule at every step."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        momenta = {part.momentum for part in named_quantizers(pl_module.detector).values()}
        norms = {part.training for part in pl_module.detector.modules() if isinstance(part, nn.BatchNorm2d)}
        self.seen = [*getattr(self, "seen", []), (*momenta, *norms)]


def test_training_starts_quantized_and_learns(tmp_path: Path) -> None:
    module = make_module()
    before = copy.deepcopy(module.detector).eval().fuse().state_dict()
    callback = make_callback()
    fit(tmp_path, callback, module)
    assert isinstance(module.detector.quantization, Quantization)
    assert not needs_calibration(module.detector)
    assert any(not torch.equal(module.detector.state_dict()[name], value) for name, value in before.items())
    assert len(callback.layers) > 100
    optimizer_sees = {id(parameter) for parameter in module.parameters()}
    assert all(id(part.weight) in optimizer_sees for part in module.detector.modules() if hasattr(part, "weight_bits"))


@pytest.mark.parametrize(
    ("quantization", "how"),
    [
        ({}, {}),
        ({"backend": "tensorrt"}, {}),
        ({"skip": ["backbone.stem"]}, {}),
        ({"weight_bits": 6}, {}),
        ({}, {"method": "minmax"}),
        ({}, {"method": "percentile", "percentile": 99.0}),
    ],
    ids=["defaults", "backend", "skip", "bits", "method", "percentile"],
)
def test_calibration_is_that_of_the_function(quantization: dict[str, Any], how: dict[str, Any], tmp_path: Path) -> None:
    """Nothing is learned at a rate of 0, and ranges that do not follow stay: only batch norm could move."""
    callback = make_callback(observe_until=0.0, **quantization, **how)
    module = fit(tmp_path, callback, make_module(lr=0.0), limit_train_batches=1)
    dataset: Any = shapes_data(train=16).dataset("train")
    images = list(calibration_batches(dataset, module.preprocessing, num_batches=2, batch_size=4))
    done = quantize(shapes_detector(), images, Quantization(**quantization), **how).detector
    assert_same(weights(module.detector), weights(done))
    assert repr(module.detector.quantization) == repr(done.quantization)
    if quantization or how:
        plain = quantize(shapes_detector(), images).detector
        with torch.no_grad():
            assert not torch.equal(done(images[0]).cls_logits, plain(images[0]).cls_logits)


def test_the_schedule_freezes_ranges_and_batch_norm(tmp_path: Path) -> None:
    callback = Watch(
        calibration_batches=1,
        calibration_batch_size=2,
        observe_until=0.5,
        momentum=0.2,
        freeze_batch_norm_from=0.75,
    )
    fit(tmp_path, callback, max_epochs=2, limit_val_batches=1)
    assert callback.seen == [(0.2, True), (0.2, True), (0.0, True), (0.0, False)]


def test_a_resumed_run_goes_on_with_the_schedule(tmp_path: Path) -> None:
    """And validation, after which Lightning switches to training mode, does not undo it."""
    arguments = {"calibration_batches": 1, "observe_until": 0.2, "momentum": 0.2, "freeze_batch_norm_from": 0.5}
    whole, resumed = Watch(**arguments), Watch(**arguments)
    fit(tmp_path, whole, None, (SaveFirstEpoch(tmp_path / "first.ckpt"),), max_epochs=3, limit_val_batches=1)
    assert whole.seen == [(0.2, True), (0.2, True), (0.0, True), (0.0, False), (0.0, False), (0.0, False)]
    fit(tmp_path, resumed, ckpt_path=tmp_path / "first.ckpt", max_epochs=3, limit_val_batches=1)
    assert resumed.seen == whole.seen[2:]


def test_ranges_rest_after_training(tmp_path: Path) -> None:
    module = fit(tmp_path, make_callback(observe_until=1.0))
    assert all(part.momentum == 0.0 for part in named_quantizers(module.detector).values())


class SaveFirstEpoch(Callback):
    """Save a checkpoint after the first epoch; place it last."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 0:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_resuming_calibrates_nothing_and_goes_on_bit_for_bit(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With everything that has a state: averages, ranges that follow, a teacher."""
    arguments = {"distillation": 0.5, "observe_until": 1.0}
    save = SaveFirstEpoch(tmp_path / "half.ckpt")
    whole = fit(tmp_path, make_callback(**arguments), None, (EMA(), save), max_epochs=2, precision=precision)
    expected = weights(whole)
    with monkeypatch.context() as patch:
        patch.setattr("detlit.callbacks.quantization.calibrate", None)
        resumed = fit(
            tmp_path,
            make_callback(**arguments),
            None,
            (EMA(),),
            ckpt_path=tmp_path / "half.ckpt",
            max_epochs=2,
            precision=precision,
        )
    assert_same(weights(resumed), expected)


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_bfloat16_is_warned_about(precision: str, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    fit(tmp_path, precision=precision, limit_train_batches=1)
    said = [str(warning.message) for warning in recwarn if "as coarsely as the integers" in str(warning.message)]
    assert len(said) == (precision == "bf16-mixed")


def test_the_checkpoint_needs_nothing_else(tmp_path: Path) -> None:
    module = fit(tmp_path, None, None, (SaveFirstEpoch(tmp_path / "q.ckpt"),))
    alone = DetectionModule.load_from_checkpoint(tmp_path / "q.ckpt")
    assert_same(weights(alone), weights(module))
    detector = detector_from_checkpoint(read_checkpoint(tmp_path / "q.ckpt")).eval()
    images = calibration_images(1)[0]
    with torch.no_grad():
        assert torch.equal(detector(images).cls_logits, alone.eval().detector(images).cls_logits)


def test_a_float_module_validates_a_quantized_checkpoint(tmp_path: Path) -> None:
    module = fit(tmp_path, None, None, (EMA(), SaveFirstEpoch(tmp_path / "q.ckpt")))
    trainer = quiet_trainer(tmp_path)
    validated = make_module()
    trainer.validate(
        validated, datamodule=shapes_data(val=8), ckpt_path=tmp_path / "q.ckpt", verbose=False, weights_only=True
    )
    assert_same(weights(validated), weights(module))


def test_a_float_checkpoint_is_not_resumed(tmp_path: Path) -> None:
    trainer = quiet_trainer(tmp_path, limit_train_batches=1, limit_val_batches=0)
    module = make_module()
    trainer.fit(module, datamodule=shapes_data(train=8))
    trainer.save_checkpoint(tmp_path / "float.ckpt")
    with pytest.raises(CheckpointError, match=r"start from its weights with model\.weights, instead of resuming it"):
        fit(tmp_path, ckpt_path=tmp_path / "float.ckpt", max_epochs=2)


def test_other_arguments_than_the_checkpoints_are_refused(tmp_path: Path) -> None:
    module = make_module()
    module.detector.quantize(Quantization(weight_bits=4))
    with pytest.raises(ConfigurationError, match=r"already, with .*weight_bits=4\), and the callback says .*=8\)"):
        fit(tmp_path, make_callback(), module)


def test_distillation_pulls_towards_the_float_detector(tmp_path: Path) -> None:
    images = calibration_images(1)[0]
    with torch.no_grad():
        expected = shapes_detector()(images).cls_logits
    apart = {}
    for weight in (0.0, 100.0):
        callback = make_callback(distillation=weight, weight_bits=4)
        module = fit(tmp_path, callback, make_module(lr=3e-4), max_epochs=4)
        assert ("train/loss_distillation" in module.trainer.callback_metrics) == (weight > 0)
        with torch.no_grad():
            apart[weight] = float((module.detector.eval()(images).cls_logits - expected).abs().mean())
    assert apart[100.0] < 0.9 * apart[0.0]
    assert not module.loss._forward_hooks
    assert not module.detector._forward_pre_hooks


class Break(Callback):
    """Raise an error in the second batch; place it last."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == 1:
            assert pl_module.loss._forward_hooks  # type: ignore[union-attr]
            assert all(part.momentum for part in named_quantizers(pl_module).values())
            raise self.error


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_leaves_the_module_as_the_end_of_training_does(error: type[BaseException], tmp_path: Path) -> None:
    module, callback = make_module(), make_callback(distillation=1.0, observe_until=1.0)
    with pytest.raises((RuntimeError, SystemExit, KeyboardInterrupt)):
        fit(tmp_path, callback, module, (Break(error),))
    assert not module.loss._forward_hooks
    assert not module.detector._forward_pre_hooks
    assert all(part.momentum == 0.0 for part in named_quantizers(module).values())
    fit(tmp_path, callback, module)  # both can be used again
    assert not module.loss._forward_hooks
    callback.on_exception(module.trainer, module, error())
    callback.teardown(module.trainer, module, "fit")


def test_the_teacher_is_the_float_detector(tmp_path: Path) -> None:
    callback = make_callback(distillation=1.0)
    fit(tmp_path, callback, max_epochs=2)
    images = calibration_images(1)[0]
    assert callback._teacher is not None
    with torch.no_grad():
        expected = shapes_detector().fuse()(images)
        torch.testing.assert_close(callback._teacher(images).cls_logits, expected.cls_logits, rtol=1e-4, atol=1e-4)


def test_the_table_is_saved_beside_the_logs(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name="")
    fit(tmp_path, logger=logger)
    lines = (Path(logger.log_dir) / "quantization.csv").read_text().splitlines()
    assert lines[0] == "name,tensor,low,high,clipped,sqnr"
    assert len(lines) > 100


def test_frozen_parts_stay_frozen(tmp_path: Path) -> None:
    module = make_module(freeze=["backbone"])
    fit(tmp_path, make_callback(freeze_batch_norm_from=1.0, observe_until=0.0), module)
    fresh = quantize(shapes_detector(), calibration_images(1)).detector.state_dict()
    state = module.detector.state_dict()
    backbone = [name for name in fresh if name.startswith("backbone.") and "quantizer" not in name]
    assert_same({name: state[name] for name in backbone}, {name: fresh[name] for name in backbone})
    assert not torch.equal(state["neck.up1.conv.conv.weight"], fresh["neck.up1.conv.conv.weight"])


def test_any_module_with_a_detector_and_images_will_do(tmp_path: Path) -> None:
    class Foreign(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.detector = shapes_detector()

        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            return self.detector(batch[0]).cls_logits.square().mean()  # type: ignore[no-any-return]

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=1e-5)

    images = calibration_images(2)
    loader = DataLoader(TensorDataset(images[0]), batch_size=4)
    read = iter([*images, None])
    trainer = quiet_trainer(tmp_path, callbacks=[make_callback(images=read)], enable_checkpointing=False)
    module = Foreign()
    trainer.fit(module, loader)
    assert not needs_calibration(module.detector)
    assert next(read) is None  # exactly two batches were read
    for images_given, message in ((None, "found no data module"), (images[:1], "less than calibration_batches=2")):
        trainer = quiet_trainer(tmp_path, callbacks=[make_callback(images=images_given)], enable_checkpointing=False)
        with pytest.raises(ConfigurationError, match=message):
            trainer.fit(Foreign(), loader)


def test_a_module_without_detector_or_loss_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"needs TinyModule\.detector"):
        quiet_trainer(tmp_path, callbacks=[make_callback()]).fit(TinyModule())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"observe_until": 1.5}, "observe_until=1.5 is no share"),
        ({"freeze_batch_norm_from": -1}, "freeze_batch_norm_from=-1 is no share"),
        ({"momentum": 2}, "momentum=2 is no share"),
        ({"distillation": -0.1}, "distillation=-0.1 pushes away"),
        ({"weight_bits": 9}, "weight_bits=9 is out of range"),
        ({"method": "median"}, "method='median' is unknown"),
        ({"percentile": 0.999}, "percentile=0.999 keeps too little"),
        ({"calibration_batch_size": 0}, "16 batches of 0 images leave none"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        QuantizationAwareTraining(**arguments)


@pytest.mark.slow
def test_training_recovers_what_four_bits_lose(tmp_path: Path) -> None:
    """Half of the loss in one epoch, and more than the same epoch without rounding brings."""
    four = Quantization(weight_bits=4)
    full = map_of(shapes_detector(), val=300)
    lost = map_of(quantize(shapes_detector(), calibration_images(16), four).detector, val=300)

    def trained(callbacks: list[Callback]) -> DetectionModule:
        seed_everything(0, verbose=False)
        module = make_module(lr=3e-4, lr_scheduler=partial(WarmupCosine, warmup_steps=0.05, final_ratio=0.05))
        trainer = quiet_trainer(tmp_path, callbacks=callbacks, limit_val_batches=0, enable_checkpointing=False)
        trainer.fit(module, datamodule=shapes_data(train=960, batch_size=16, augmentations=None))
        return module

    aware = trained([QuantizationAwareTraining(weight_bits=4), EMA(decay=0.95)]).detector.eval()
    control = trained([EMA(decay=0.95)]).detector.eval()
    recovered = map_of(aware, val=300)
    without = map_of(quantize(control, calibration_images(16), four).detector, val=300)
    print(f"\nfloat {full:.4f}, 4-bit weights {lost:.4f}, trained {recovered:.4f}, float-trained {without:.4f}")
    assert recovered - lost >= 0.5 * (full - lost)
    assert recovered - without >= 0.02


@pytest.mark.slow
def test_training_at_eight_bits_costs_nothing(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    done = quantize(shapes_detector(), calibration_images(16)).detector
    module = make_module(lr=5e-5)
    trainer = quiet_trainer(
        tmp_path,
        callbacks=[QuantizationAwareTraining(), EMA(decay=0.95)],
        limit_val_batches=0,
        enable_checkpointing=False,
    )
    trainer.fit(module, datamodule=shapes_data(train=960, batch_size=16, augmentations=None))
    values = {}
    for name, detector in (("PTQ", done), ("QAT", module.detector.eval())):
        file = export_onnx(detector, tmp_path / f"{name}.onnx", dynamic=("batch",))
        values[name] = map_of_decoded(OnnxSession(file), val=300)
        assert values[name] == pytest.approx(map_of(detector, val=300), abs=0.005)
    print(f"\nfloat {map_of(shapes_detector(), val=300):.4f}, in ONNX Runtime: {values}")
    assert values["QAT"] >= values["PTQ"] - 0.005


class AgreeAtTheEnd(Callback):
    """Fail on a rank whose ranges or weights differ from those of the first."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        states: list[Any] = [None, None]
        # Statistics of batch norm are each process' own, as everywhere in DDP.
        own = {name: value for name, value in weights(pl_module).items() if "running_" not in name}
        distributed.all_gather_object(states, own)
        assert_same(states[0], states[1])


@pytest.mark.distributed
def test_two_processes_have_the_same_scales(tmp_path: Path) -> None:
    callback = make_callback(observe_until=1.0)
    trainer = quiet_trainer(
        tmp_path,
        callbacks=[callback, AgreeAtTheEnd()],
        devices=2,
        strategy="ddp_fork",
        limit_val_batches=0,
        enable_checkpointing=False,
    )
    trainer.fit(make_module(), datamodule=shapes_data(train=32))
