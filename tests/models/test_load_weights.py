import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from detlit import DetectionModule
from detlit.errors import CheckpointError, ConfigurationError
from detlit.models import Detector
from detlit.models.checkpoint_entry import make_entry
from detlit.models.checkpoints import load_weights
from detlit.spec import init_spec_of
from detlit.structures import Preprocessing
from tests.golden_checkpoint import CHECKPOINT, golden_detector
from tests.tiny import tiny_detector as make_tiny_detector

CLASS_LAYERS = [f"head.levels.{level}.cls_pred.{kind}" for level in range(3) for kind in ("weight", "bias")]


def fresh(num_classes: int) -> Detector:
    torch.manual_seed(num_classes)
    return golden_detector(num_classes)


@pytest.fixture(scope="module")
def trained() -> dict[str, Tensor]:
    """Weights for the classes cat, dog and bird."""
    detector = fresh(3)
    load_weights(detector, CHECKPOINT, mode="strict")
    return detector.state_dict()


def assert_equal(actual: dict[str, Tensor], expected: dict[str, Tensor], names: list[str]) -> None:
    for name in names:
        assert torch.equal(actual[name], expected[name]), name


def detlit_checkpoint(path: Path, detector: Detector, class_names: list[str]) -> Path:
    module = DetectionModule(detector, class_names=class_names)
    entry = make_entry(init_spec_of(module), None, Preprocessing(), class_names)
    torch.save({"state_dict": module.state_dict(), "detlit": entry}, path)
    return path


def test_all_weights_are_loaded_and_reported(trained: dict[str, Tensor]) -> None:
    detector = fresh(3)
    report = load_weights(detector, CHECKPOINT)
    assert set(report.loaded) == set(detector.state_dict())
    assert not report.skipped
    assert not report.unexpected
    assert str(report) == f"{CHECKPOINT} (SuperGradients, ema_net): loaded 551 of 551 tensors"
    assert_equal(detector.state_dict(), trained, list(trained))


@pytest.mark.parametrize("num_classes", [1, 2, 80])
def test_class_layers_stay_fresh_where_the_number_of_classes_differs(
    num_classes: int, trained: dict[str, Tensor]
) -> None:
    detector = fresh(num_classes)
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    report = load_weights(detector, CHECKPOINT)
    state = detector.state_dict()
    assert_equal(state, before, CLASS_LAYERS)
    assert_equal(state, trained, [name for name in trained if name not in CLASS_LAYERS])
    for name in CLASS_LAYERS:
        assert torch.isfinite(state[name]).all()
        if name.endswith("bias"):
            torch.testing.assert_close(state[name], torch.full((num_classes,), -math.log(99)))
    assert dict(report.skipped) == dict.fromkeys(CLASS_LAYERS, f"3 classes in the file and {num_classes} here")
    assert report.kept_classes == ()
    with torch.no_grad():
        assert torch.isfinite(detector.eval()(torch.rand(1, 3, 64, 64)).cls_logits).all()


def test_from_one_class_to_many(tmp_path: Path) -> None:
    torch.save(fresh(1).state_dict(), tmp_path / "one.pth")
    detector = fresh(4)
    load_weights(detector, tmp_path / "one.pth")
    assert all(torch.isfinite(value).all() for value in detector.state_dict().values())


def test_rows_of_classes_of_the_same_name_are_kept(trained: dict[str, Tensor]) -> None:
    detector = fresh(4)
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    report = load_weights(detector, CHECKPOINT, class_names=["bird", "horse", "cat", "cow"])
    for name in CLASS_LAYERS:
        value = detector.state_dict()[name]
        assert torch.equal(value[[0, 2]], trained[name][[2, 0]])
        assert torch.equal(value[[1, 3]], before[name][[1, 3]])
    assert report.kept_classes == ("bird", "cat")
    assert str(report).splitlines() == [
        f"{CHECKPOINT} (SuperGradients, ema_net): loaded 545 of 551 tensors",
        "  not loaded, 3 classes in the file and 4 here: head.levels.0.cls_pred.weight, head.levels.0.cls_pred.bias, "
        "head.levels.1.cls_pred.weight and 3 more",
        "  but loaded for the classes of the same name: bird, cat",
    ]


def test_rows_follow_the_order_of_the_classes(trained: dict[str, Tensor]) -> None:
    detector = fresh(3)
    report = load_weights(detector, CHECKPOINT, class_names=["bird", "dog", "cat"])
    for name in CLASS_LAYERS:
        assert torch.equal(detector.state_dict()[name], trained[name][[2, 1, 0]])
    assert set(report.skipped.values()) == {"classes in another order in the file"}


@pytest.mark.parametrize(
    "names", [["cat", "dog", "bird"], ["cat", "hound", "bird"], ["x", "y", "z"], ["class_0", "class_1", "class_2"]]
)
def test_rows_stay_where_no_class_has_moved(names: list[str], trained: dict[str, Tensor]) -> None:
    detector = fresh(3)
    assert not load_weights(detector, CHECKPOINT, class_names=names).skipped
    assert_equal(detector.state_dict(), trained, CLASS_LAYERS)


def test_placeholder_names_match_nothing(tmp_path: Path) -> None:
    placeholders = [f"class_{label}" for label in range(3)]
    path = detlit_checkpoint(tmp_path / "x.ckpt", fresh(3), placeholders)
    report = load_weights(fresh(2), path, class_names=placeholders[:2])
    assert report.kept_classes == ()


def test_checkpoints_of_detlit(tmp_path: Path) -> None:
    source = fresh(3)
    path = detlit_checkpoint(tmp_path / "x.ckpt", source, ["a", "b", "c"])
    detector = golden_detector(3)
    report = load_weights(detector, path, mode="strict")
    assert_equal(detector.state_dict(), source.state_dict(), list(report.loaded))
    assert report.source.startswith(f"{path} (detlit ")
    assert load_weights(golden_detector(2), path, class_names=["c", "d"]).kept_classes == ("c",)


def test_backbone_alone(trained: dict[str, Tensor]) -> None:
    detector = fresh(7)
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    report = load_weights(detector, CHECKPOINT, mode="backbone")
    backbone = [name for name in before if name.startswith("backbone.")]
    assert list(report.loaded) == backbone
    assert_equal(detector.state_dict(), trained, backbone)
    assert_equal(detector.state_dict(), before, [name for name in before if name not in backbone])
    assert set(report.skipped.values()) == {"outside the backbone"}


def test_what_matches(trained: dict[str, Tensor], tmp_path: Path) -> None:
    partial = {name: value for name, value in trained.items() if not name.startswith("neck.up1.")}
    partial |= {"backbone.stem.branch_3x3.conv.weight": torch.zeros(9, 3, 3, 3), "head.extra": torch.zeros(1)}
    torch.save(partial, tmp_path / "x.pth")
    detector = fresh(2)
    report = load_weights(detector, tmp_path / "x.pth", mode="matching")
    assert_equal(detector.state_dict(), trained, list(report.loaded))
    assert len(report.loaded) + len(report.skipped) == 551
    assert report.skipped["neck.up1.conv.conv.weight"] == "not in the file"
    assert (
        report.skipped["backbone.stem.branch_3x3.conv.weight"] == "shape [9, 3, 3, 3] in the file and [8, 3, 3, 3] here"
    )
    assert report.skipped["head.levels.0.cls_pred.bias"] == "shape [3] in the file and [2] here"
    assert report.unexpected == {"head.extra": "not in the detector"}
    assert "  left out, not in the detector: head.extra" in str(report).splitlines()


def test_other_detectors_are_refused_and_stay_as_they_are(tmp_path: Path, tiny_detector: Detector) -> None:
    before = {name: value.clone() for name, value in tiny_detector.state_dict().items()}
    for mode in ("auto", "strict", "backbone"):
        with pytest.raises(
            CheckpointError, match=r"does not fit the detector in \d+ tensors, backbone\.\S+, .* more: "
        ):
            load_weights(tiny_detector, CHECKPOINT, mode=mode)
    assert_equal(tiny_detector.state_dict(), before, list(before))
    torch.save({"weight": torch.zeros(1)}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="has no tensor in common with the detector"):
        load_weights(tiny_detector, tmp_path / "x.pth", mode="matching")


def test_strict_wants_the_same_number_of_classes() -> None:
    with pytest.raises(CheckpointError, match="has 3 classes and the detector 5: load it with mode='auto'"):
        load_weights(fresh(5), CHECKPOINT, mode="strict")


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ConfigurationError, match="mode='everything' is no way to load weights"):
        load_weights(fresh(3), CHECKPOINT, mode="everything")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="2 class names for a detector with 3 classes"):
        load_weights(fresh(3), CHECKPOINT, class_names=["a", "b"])
    with pytest.raises(CheckpointError, match=r"there is no checkpoint .*gone\.pth"):
        load_weights(fresh(3), "gone.pth")


def test_counters_that_were_averaged_are_counters_again(trained: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"net": {name: value.double() for name, value in trained.items()}}, tmp_path / "average_model.pth")
    detector = fresh(3)
    load_weights(detector, tmp_path / "average_model.pth")
    state = detector.state_dict()
    assert {name: value.dtype for name, value in state.items()} == {name: v.dtype for name, v in trained.items()}
    assert_equal(state, trained, list(trained))


@pytest.mark.parametrize("channels", [1, 4])
def test_weights_for_rgb_are_fitted_to_other_channels(channels: int, tmp_path: Path) -> None:
    """A grey image, whatever its number of channels, gets the raw predictions of its RGB copy."""
    torch.manual_seed(0)
    rgb, other = make_tiny_detector().eval(), make_tiny_detector(in_channels=channels).eval()
    torch.save(rgb.state_dict(), tmp_path / "rgb.pth")
    report = load_weights(other, tmp_path / "rgb.pth")
    assert len(report.adapted) == 2  # both branches of the stem
    assert "fitted to another number of image channels" in str(report)
    grey = torch.rand(1, 1, 64, 64)
    expected, actual = rgb(grey.expand(-1, 3, -1, -1)), other(grey.expand(-1, channels, -1, -1))
    torch.testing.assert_close(actual.cls_logits, expected.cls_logits)
    with pytest.raises(CheckpointError, match="does not fit the detector in 2 tensors"):
        load_weights(other, tmp_path / "rgb.pth", mode="strict")


BGR = Preprocessing(keep_ratio=False, channel_order="BGR", mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1))


def bgr_checkpoint(path: Path) -> Path:
    detector = make_tiny_detector()
    entry = make_entry({}, None, BGR, [f"class_{label}" for label in range(detector.num_classes)])
    state = {f"detector.{name}": value for name, value in detector.state_dict().items()}
    torch.save({"state_dict": state, "detlit": entry}, path)
    return path


def test_colours_are_normalized_as_the_weights_were_trained(tmp_path: Path) -> None:
    detector = make_tiny_detector()
    detector.set_preprocessing(Preprocessing(size=(64, 96)))
    report = load_weights(detector, bgr_checkpoint(tmp_path / "bgr.ckpt"))
    assert detector.preprocessing == replace(BGR, size=(64, 96), keep_ratio=True)
    grey = torch.full((1, 3, 64, 96), 0.5)
    torch.testing.assert_close(detector.normalization(grey, torch.float32)[0, :, 0, 0], torch.tensor([0.0, 0.5, 2.0]))
    assert report.notes == (
        "the detector now takes BGR images normalized by mean (0.5, 0.4, 0.3) and std (0.2, 0.2, 0.1), "
        "as the weights were trained.",
    )
    assert report.notes[0] in str(report)


def test_a_normalization_that_was_asked_for_stays_and_is_reported(tmp_path: Path) -> None:
    detector = make_tiny_detector()
    asked = Preprocessing(mean=(0.1, 0.1, 0.1))
    detector.set_preprocessing(asked)
    report = load_weights(detector, bgr_checkpoint(tmp_path / "bgr.ckpt"))
    assert detector.preprocessing == asked
    assert "takes RGB images normalized by mean (0.1, 0.1, 0.1) and std 1 as it was told to" in str(report)


def test_weights_of_fused_branches_are_refused(tmp_path: Path) -> None:
    fused = {"backbone.stem.conv.rbr_reparam.weight": torch.zeros(8, 3, 3, 3), "neck.neck1.x": torch.zeros(1)}
    torch.save({"net": fused}, tmp_path / "fused.pth")
    with pytest.raises(CheckpointError, match=r"fused\.pth holds no weights: its branches were fused"):
        load_weights(make_tiny_detector(), tmp_path / "fused.pth")
