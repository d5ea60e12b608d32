"""Files and names of SuperGradients; tests/golden/README.md describes the checkpoint its Trainer wrote."""

import os
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from detlit.errors import CheckpointError, ConfigurationError
from detlit.models import presets
from detlit.models.checkpoints import read_weights
from detlit.models.recognition import recognize_preset
from detlit.models.super_gradients import (
    from_super_gradients,
    preprocessing_from_super_gradients,
    weights_from_super_gradients,
)
from detlit.models.torch_files import read_torch_file
from detlit.models.weights import Weights
from detlit.ops.boxes import decode_boxes
from detlit.structures import Preprocessing
from tests.golden_checkpoint import CHECKPOINT, FORWARD, golden_detector
from tests.golden_recipe import image_batch

PUBLISHED = ["ppyoloe_s", "ppyoloe_m", "ppyoloe_l", "ppyoloe_x", "yolo_nas_s", "yolo_nas_m", "yolo_nas_l"]


def published_state(model: str, num_classes: int = 80) -> dict[str, Tensor]:
    """Return names and shapes of a published state dict, without values."""
    with np.load(CHECKPOINT.with_name(f"forward_{model.rpartition('_')[0]}.npz")) as arrays:
        keys, shapes = arrays[f"{model}_keys"].astype(str), arrays[f"{model}_shapes"]
    state = {key: [n for n in shape if n >= 0] for key, shape in zip(keys.tolist(), shapes.tolist(), strict=True)}
    for key, shape in state.items():
        if "cls_pred." in key or "pred_cls." in key:
            shape[0] = num_classes
    return {key: torch.empty(shape, device="meta") for key, shape in state.items()}


# ------------------------------------------------------------------------------------------------------ names
def renamed(name: str) -> list[str]:
    return list(from_super_gradients({name: torch.zeros(1)}))


def test_names_of_yolo_nas_become_ours() -> None:
    assert renamed("backbone.stem.conv.branch_3x3.conv.weight") == ["backbone.stem.branch_3x3.conv.weight"]
    assert renamed("backbone.stage4.blocks.bottlenecks.1.cv2.post_bn.bias") == [
        "backbone.stages.3.blocks.bottlenecks.1.conv2.post_bn.bias"
    ]
    assert renamed("heads.head3.cls_convs.0.seq.bn.weight") == ["head.levels.2.cls_conv.bn.weight"]


def test_names_of_ppyoloe_become_ours() -> None:
    names = {
        "backbone.stem.conv1.seq.bn.weight": "backbone.stem.conv1.bn.weight",
        "backbone.stages.1.conv_down.seq.conv.weight": "backbone.stages.1.downsample.conv.weight",
        "backbone.stages.1.blocks.0.conv2.branch_1x1.bn.bias": (
            "backbone.stages.1.blocks.bottlenecks.0.conv2.branch_1x1.bn.bias"
        ),
        "neck.fpn_stages.0.0.convs.spp.conv.seq.bn.bias": "neck.fpn5.bottlenecks.spp.conv.bn.bias",
        "neck.pan_routes.1.seq.conv.weight": "neck.pan4.resample.conv.weight",
        "module.head.stem_cls.2.fc.bias": "head.levels.2.cls_stem.fc.bias",
    }
    assert list(from_super_gradients(dict.fromkeys(names, torch.zeros(1)))) == list(names.values())


def test_wrappers_are_stripped() -> None:
    for prefix in ("module.", "_orig_mod.", "module._orig_mod."):
        assert renamed(f"{prefix}neck.neck4.conv.bn.bias") == ["neck.down2.conv.bn.bias"]


def test_placeholders_are_dropped_and_unknown_names_kept() -> None:
    assert renamed("backbone.stem.conv.rbr_reparam.weight") == []
    assert renamed("neck.neck1.blocks.bottlenecks.0.cv1.id_tensor") == []
    assert renamed("heads.extra") == ["heads.extra"]


def test_names_of_detlit_stay() -> None:
    for preset in (presets.yolo_nas_n, presets.ppyoloe_s):
        with torch.device("meta"):
            names = list(preset().state_dict())
        assert list(from_super_gradients(dict.fromkeys(names, torch.zeros(1)))) == names


def test_values_are_not_copied() -> None:
    value = torch.zeros(2)
    assert from_super_gradients({"heads.head1.reg_pred.bias": value})["head.levels.0.reg_pred.bias"] is value


# ------------------------------------------------------------------------------------------------------ files
@pytest.mark.parametrize("key", ["ema_net", "net"])
def test_outputs_are_those_of_super_gradients(key: str) -> None:
    stored = read_torch_file(CHECKPOINT)
    if key == "net":
        del stored["ema_net"]  # as in average_model.pth
    weights = weights_from_super_gradients(stored)
    assert weights.origin == f"SuperGradients, {key}"
    detector = golden_detector().eval()
    detector.load_state_dict(weights.state_dict)
    with torch.no_grad():
        predictions = detector(torch.from_numpy(image_batch("ckpt", 1, 64, 64)))
    with np.load(FORWARD) as golden:
        expected = {name: torch.from_numpy(golden[f"{key}_{name}"]) for name in ("boxes", "scores", "cls", "distri")}
    torch.testing.assert_close(predictions.cls_logits, expected["cls"], rtol=0, atol=5e-5)
    torch.testing.assert_close(predictions.reg_logits, expected["distri"], rtol=0, atol=5e-5)
    torch.testing.assert_close(predictions.cls_logits.sigmoid(), expected["scores"], rtol=0, atol=1e-5)
    torch.testing.assert_close(decode_boxes(*predictions[1:4]), expected["boxes"], rtol=0, atol=2e-3)


def test_classes_input_and_thresholds_come_from_the_file() -> None:
    weights = read_weights(CHECKPOINT)
    assert weights.class_names == ("cat", "dog", "bird")
    assert all(type(name) is str for name in weights.class_names)
    assert weights.num_classes == 3
    assert weights.preprocessing == Preprocessing(size=(64, 64), content_size=(60, 60))
    assert (weights.score_threshold, weights.nms_threshold) == (0.5, 0.65)
    assert weights.notes == ()


@pytest.mark.parametrize(
    ("model", "preprocessing", "thresholds"),
    [
        ("yolo_nas_s", Preprocessing(content_size=(636, 636)), (0.25, 0.7)),
        (
            "ppyoloe_s",
            Preprocessing(keep_ratio=False, channel_order="BGR", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
            (0.5, 0.65),
        ),
    ],
)
@pytest.mark.parametrize("bare", [False, True])
def test_published_files_say_nothing_and_are_known(
    bare: bool, model: str, preprocessing: Preprocessing, thresholds: tuple[float, float]
) -> None:
    state = published_state(model)
    weights = weights_from_super_gradients(state if bare else {"net": state})
    assert weights.preprocessing == preprocessing
    assert (weights.score_threshold, weights.nms_threshold) == thresholds
    assert weights.class_names is not None
    assert len(set(weights.class_names)) == 80
    assert [weights.class_names[label] for label in (0, 9, 11, 79)] == [
        "person",
        "traffic light",
        "stop sign",
        "toothbrush",
    ]
    assert "taken for COCO's" in " ".join(weights.notes)
    assert weights_from_super_gradients({"net": published_state(model, 3)}).class_names is None


def test_a_score_threshold_that_repeats_the_nms_threshold_is_not_believed() -> None:
    stored = {"net": published_state("yolo_nas_s"), "processing_params": {"conf": 0.65, "iou": 0.65}}
    weights = weights_from_super_gradients(stored)
    assert (weights.score_threshold, weights.nms_threshold) == (0.25, 0.65)


SLOW = {"yolo_nas_l", "yolo_nas_m", "ppyoloe_x", "ppyoloe_l", "ppyoloe_m"}


@pytest.mark.parametrize("model", [pytest.param(x, marks=[pytest.mark.slow] * (x in SLOW)) for x in PUBLISHED])
def test_presets_are_recognized(model: str) -> None:
    for num_classes in (1, 80):
        weights = weights_from_super_gradients({"net": published_state(model, num_classes)})
        assert recognize_preset(weights, "x.pth") == model


def test_other_architectures_are_not_recognized() -> None:
    with pytest.raises(CheckpointError, match=r"x\.pth \(SuperGradients, net\) has not the shapes of any preset"):
        recognize_preset(Weights(golden_detector().state_dict(), "SuperGradients, net"), "x.pth")


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        ({"net": None}, "its 'net' holds no tensors"),
        ({"net": {"weight": 1.0}}, "its 'net' holds no tensors"),
        ({"model": {"weight": torch.zeros(1)}}, "neither a checkpoint of detlit"),
        ([torch.zeros(1)], "neither a checkpoint of detlit"),
        ({}, "neither a checkpoint of detlit"),
    ],
)
def test_other_layouts_are_refused(stored: Any, reason: str, tmp_path: Path) -> None:
    torch.save(stored, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=rf"x\.pth holds no weights: .*{reason}"):
        read_weights(tmp_path / "x.pth")


# ---------------------------------------------------------------------------------------------------- pickles
def with_numpy_module(source: Path, target: Path, module: str) -> Path:
    """Copy a file of ``torch.save`` as numpy 1 or 2 would have named its functions in it."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for record in old.infolist():
            data = old.read(record)
            if record.filename.endswith("/data.pkl"):
                data = re.sub(rb"cnumpy\._?core\.multiarray\n", f"cnumpy.{module}.multiarray\n".encode(), data)
                assert f"numpy.{module}.multiarray\n".encode() in data
            new.writestr(record.filename, data)
    return target


@pytest.mark.parametrize("module", ["core", "_core"], ids=["numpy 1", "numpy 2"])
def test_numpy_values_are_read_whichever_numpy_wrote_them(module: str, tmp_path: Path) -> None:
    values = {
        "names": [np.str_("cat"), np.str_("höhle")],
        "acc": np.float64(0.25),
        "scalars": [np.float32(0.5), np.int64(3), np.bool_(True)],
        "mean": np.array([123.675, 116.28, 103.53], dtype=np.float32).reshape(1, 1, 3),
    }
    torch.save(values, tmp_path / "new.pth")
    read = read_torch_file(with_numpy_module(tmp_path / "new.pth", tmp_path / "old.pth", module))
    assert {name: value for name, value in read.items() if name != "mean"} == {
        name: value for name, value in values.items() if name != "mean"
    }
    np.testing.assert_array_equal(read["mean"], values["mean"])


@pytest.mark.parametrize("module", ["core", "_core"], ids=["numpy 1", "numpy 2"])
def test_checkpoints_of_either_numpy_are_read(module: str, tmp_path: Path) -> None:
    weights = read_weights(with_numpy_module(CHECKPOINT, tmp_path / "old.pth", module))
    assert weights.class_names == ("cat", "dog", "bird")


class Malicious:
    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call[0], self.call[1:]


@pytest.mark.parametrize("place", ["net", "processing_params", "optimizer_state_dict"])
def test_code_is_refused_and_does_not_run(place: str, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    for call in ((os.mkdir, str(ran)), (Path.touch, ran), (eval, f"open({str(ran)!r}, 'w')")):
        torch.save({"net": {"weight": torch.zeros(1)}, place: Malicious(*call)}, tmp_path / "evil.pth")
        with pytest.raises(CheckpointError, match=r"evil\.pth .* could run code") as refusal:
            read_weights(tmp_path / "evil.pth")
        assert "\n" not in str(refusal.value)
        assert not ran.exists()


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    torch.save({"net": np.array([Malicious(os.mkdir, str(tmp_path / "ran"))], dtype=object)}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match="could run code"):
        read_weights(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_what_torch_load_allows_is_as_before(tmp_path: Path) -> None:
    torch.save({"net": np.float64(1.0)}, tmp_path / "x.pth")
    torch.serialization.add_safe_globals([Malicious])
    try:
        before = set(torch.serialization.get_safe_globals())
        read_torch_file(tmp_path / "x.pth")
        assert set(torch.serialization.get_safe_globals()) == before
        with pytest.raises(pickle.UnpicklingError, match="numpy"):
            torch.load(tmp_path / "x.pth", weights_only=True)
    finally:
        remaining = [x for x in torch.serialization.get_safe_globals() if x is not Malicious]
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(remaining)


# ----------------------------------------------------------------------------------------------------- images
def preprocessing_of(*steps: Any) -> Preprocessing:
    return preprocessing_from_super_gradients({"ComposeProcessing": {"processings": list(steps)}})


STRETCH = {"DetectionRescale": {"output_shape": (320, 640)}}


def test_pipeline_of_the_trainer() -> None:
    assert preprocessing_of(
        "ReverseImageChannels",
        {"DetectionLongestMaxSizeRescale": {"output_shape": (640, 640)}},
        {"DetectionLongestMaxSizeRescale": {"output_shape": (608, 608)}},
        {"DetectionBottomRightPadding": {"output_shape": (640, 640), "pad_value": 0}},
        {"ImagePermute": {"permutation": (2, 0, 1)}},
    ) == Preprocessing(
        content_size=(608, 608), anchor="top_left", pad_value=0, channel_order="BGR", std=(0.003921569,) * 3
    )


def test_stretching_and_normalization_as_numpy_arrays() -> None:
    mean, std = (
        np.array(x, dtype=np.float32).reshape(1, 1, 3) for x in ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
    )
    assert preprocessing_of({"ReverseImageChannels": {}}, STRETCH, {"NormalizeImage": {"mean": mean, "std": std}}) == (
        Preprocessing(
            size=(320, 640),
            keep_ratio=False,
            channel_order="BGR",
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        )
    )


def test_normalization_steps_compose_and_follow_the_channels() -> None:
    pixel = np.array([200.0, 100.0, 50.0])  # red, green, blue
    found = preprocessing_of(
        STRETCH,
        {"StandardizeImage": {"max_value": 100.0}},
        {"NormalizeImage": {"mean": [0.1, 0.2, 0.3], "std": [1.0, 2.0, 4.0]}},
        "ReverseImageChannels",
    )
    expected = ((pixel / 100 - [0.1, 0.2, 0.3]) / [1.0, 2.0, 4.0])[::-1]
    assert found.channel_order == "BGR"
    np.testing.assert_allclose((pixel[::-1] / 255 - found.mean) / found.std, expected, rtol=1e-5)


def test_dividing_by_255_is_our_default() -> None:
    assert preprocessing_of(STRETCH, {"StandardizeImage": {"max_value": 255.0}}) == Preprocessing(
        size=(320, 640), keep_ratio=False
    )


def test_steps_without_counterpart_are_named() -> None:
    with pytest.raises(CheckpointError, match="go through DetectionAutoPadding, which has no counterpart"):
        preprocessing_of(STRETCH, {"DetectionAutoPadding": {"shape_multiple": (32, 32)}})
    with pytest.raises(CheckpointError, match="does not resize its images"):
        preprocessing_of({"StandardizeImage": {"max_value": 255.0}})
    with pytest.raises(ConfigurationError, match="multiples of 32"):
        preprocessing_of({"DetectionRescale": {"output_shape": (100, 100)}})


def test_weights_load_without_a_known_pipeline() -> None:
    params = {"image_processor": {"DetectionAutoPadding": {}}}
    weights = weights_from_super_gradients({"net": published_state("yolo_nas_s"), "processing_params": params})
    assert weights.preprocessing is None
    assert "DetectionAutoPadding" in " ".join(weights.notes)
