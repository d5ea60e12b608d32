"""The road from a checkpoint to a quantized one and its ONNX file, on the command line."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detlit import DetectionModule, Predictor, ShapesDataset
from detlit.cli import main
from detlit.export import Comparison, Verification, open_exported
from detlit.export.comparison import Row
from detlit.export.verify import QUANTIZED
from detlit.models.checkpoint_entry import detector_from_checkpoint, read_checkpoint
from detlit.quantization import Quantization, calibration_batches, quantize
from tests.callbacks.tiny import assert_same, quiet_trainer, weights
from tests.shapes_detector import CHECKPOINT, shapes_data, shapes_detector

SMALL = ["--calibration_batches", "2", "--calibration_batch_size", "4", "--val_batches", "3"]


GOOD = Verification([], None, {}, 0, None, None)
ALIKE = Comparison("runtime", [], QUANTIZED, quantized=True)


def write_graph(detector: object, path: Path, nms: str = "none", **options: object) -> Path:
    """Stand for an export, which takes its time."""
    path.write_text(f"graph, nms {nms}")
    return path


def run(output: Path, *arguments: str) -> int:
    return main(["quantize", "--ckpt_path", str(CHECKPOINT), "--output", str(output), *SMALL, *arguments])


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("quantize") / "new" / "q.ckpt"
    assert run(path, "--val_batches", "0") == 0
    return path


def test_it_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "q.ckpt", "--skip", '["backbone.stem"]', "--rank", "sqnr") == 0
    out = capsys.readouterr().out
    assert "SQNR dB" in out
    assert "in floating point: backbone.stem" in out
    assert "mAP: 0." in out
    assert out.splitlines()[-1] == f"written to {tmp_path / 'q.ckpt'}"


def test_the_checkpoint_loads_and_records_its_arguments(tmp_path: Path, quantized: Path) -> None:
    stored = torch.load(quantized, weights_only=True)
    record = stored["detlit"]["module"]["detector"]["init_args"]["quantization"]["init_args"]
    assert record == {"backend": "cpu", "skip": [], "weight_bits": 8}
    assert stored["detlit"]["data"] == read_checkpoint(CHECKPOINT)["detlit"]["data"]


def test_the_options_are_those_of_the_function(tmp_path: Path) -> None:
    options = ["--backend", "tensorrt", "--method", "percentile", "--percentile", "99.9", "--skip_sensitive", "2"]
    assert run(tmp_path / "q.ckpt", *options, "--weight_bits", "7", "--val_batches", "0") == 0
    data = ShapesDataset(3000, image_size=128)  # as the checkpoint says
    images = list(calibration_batches(data, shapes_detector().preprocessing, num_batches=2, batch_size=4))
    wanted = Quantization("tensorrt", weight_bits=7)
    done = quantize(shapes_detector(), images, wanted, method="percentile", percentile=99.9, skip_sensitive=2).detector
    found = detector_from_checkpoint(read_checkpoint(tmp_path / "q.ckpt"))
    assert repr(found.quantization) == repr(done.quantization)
    assert_same(weights(found), weights(done))


def test_the_checkpoint_validates_and_predicts_as_any_other(quantized: Path) -> None:
    data = shapes_data(val=60)
    maps = []
    for path in (CHECKPOINT, quantized):
        module = DetectionModule.load_from_checkpoint(path)
        trainer = quiet_trainer(quantized.parent)
        (values,) = trainer.validate(module, datamodule=data, verbose=False)
        maps.append(values["val/map"])
    assert maps[1] == pytest.approx(maps[0], abs=0.015)
    assert maps[1] != maps[0]
    image = data.dataset("val").load_image(1)  # type: ignore[union-attr]
    found = [next(iter(Predictor(path, score_threshold=0.5, device="cpu")(image))) for path in (CHECKPOINT, quantized)]
    boxes = [
        {(int(label), *(box / 8).round()) for label, box in zip(result.labels, result.boxes, strict=True)}
        for result in found
    ]
    assert len(boxes[0] & boxes[1]) >= 3  # of five
    assert sorted(found[1].labels) == sorted(found[0].labels)


def test_the_command_line_validates_it(quantized: Path, tmp_path: Path) -> None:
    options = ["--trainer.limit_val_batches=1", "--trainer.accelerator=cpu", f"--trainer.default_root_dir={tmp_path}"]
    assert main(["validate", "--ckpt_path", str(quantized), *options]) == 0


def test_the_onnx_file_carries_the_settings_of_the_checkpoint(tmp_path: Path) -> None:
    """Those that detlit export writes of the quantized checkpoint: both files find the same."""
    pytest.importorskip("onnxruntime")
    stored = torch.load(CHECKPOINT, weights_only=True)
    stored["detlit"]["score_threshold"] = 0.4385
    stored["detlit"]["module"]["post_prediction_callback"]["init_args"] |= {"nms_threshold": 0.6, "max_predictions": 40}
    torch.save(stored, tmp_path / "best.ckpt")
    options = ["--ckpt_path", str(tmp_path / "best.ckpt"), "--val_batches", "0"]
    assert run(tmp_path / "q.ckpt", *options, "--onnx", str(tmp_path / "q.onnx")) == 0
    exported = ["--ckpt_path", str(tmp_path / "q.ckpt"), "--output", str(tmp_path / "exported.onnx")]
    assert main(["export", *exported]) == 0
    metadata = open_exported(tmp_path / "q.onnx").metadata
    assert metadata == open_exported(tmp_path / "exported.onnx").metadata
    settings = metadata["post_prediction"]
    assert settings["score_threshold"] == metadata["score_threshold"] == 0.4385
    assert (settings["nms_threshold"], settings["max_predictions"]) == (0.6, 40)
    images = [shapes_data(val=8).dataset("val").load_image(index) for index in range(8)]  # type: ignore[union-attr]
    found, expected = (list(Predictor(tmp_path / name)(images)) for name in ("q.onnx", "exported.onnx"))
    assert sum(len(result) for result in found) > 8
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours.boxes, theirs.boxes)
        np.testing.assert_array_equal(ours.scores, theirs.scores)
        assert ours.names == theirs.names
        assert min(ours.scores, default=1.0) > 0.4385


@pytest.mark.slow
def test_the_onnx_file_is_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    assert run(tmp_path / "q.ckpt", "--onnx", str(tmp_path / "q.onnx"), "--nms", "batch", "--verify", "true") == 0
    out = capsys.readouterr().out
    assert "convolutions on integers in ONNX Runtime: 70 of 76 (92.1%)" in out
    assert "times float, ONNX Runtime, one thread" in out
    assert out.count(" ok\n") == 12  # of the detections, at 4 sizes and with 3 numbers of images
    assert {path.name for path in tmp_path.iterdir()} == {"q.ckpt", "q.onnx"}
    session = open_exported(tmp_path / "q.onnx")
    assert set(session.outputs(np.zeros((1, 3, 64, 64), np.uint8))) == {"num_detections", "boxes", "scores", "labels"}


@pytest.mark.parametrize(
    ("nms", "found", "problem"),
    [
        ("batch", (GOOD, ALIKE), ""),
        ("batch", (dataclasses.replace(GOOD, failures=["a box is off"]), ALIKE), "is not good: a box is off."),
        ("none", (GOOD, dataclasses.replace(ALIKE, rows=[Row((64, 64), 1, 9, 0, 6.1, 0.0)])), "by up to 6.1 pixels"),
    ],
    ids=["good", "boxes off", "detections off"],
)
def test_only_a_good_file_gets_its_name(
    nms: str,
    found: tuple[Verification, Comparison],
    problem: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graphs: list[str] = []

    def verify(_: object, path: Path, *__: object, **___: object) -> Verification:
        graphs.append(path.read_text())
        return found[0]

    def compare(_: object, graph: str, __: object) -> Comparison:
        graphs.append(graph)
        return found[1]

    monkeypatch.setattr("detlit.cli.quantize.export_onnx", write_graph)
    monkeypatch.setattr("detlit.cli.quantize.open_exported", lambda path: path.read_text())
    monkeypatch.setattr("detlit.cli.quantize.verify", verify)
    monkeypatch.setattr("detlit.cli.quantize.compare", compare)
    options = ["--val_batches", "0", "--onnx", str(tmp_path / "q.onnx"), "--nms", nms, "--verify"]
    assert run(tmp_path / "q.ckpt", *options) == (1 if problem else 0)
    name = "q.unverified.onnx" if problem else "q.onnx"
    assert {path.name for path in tmp_path.iterdir()} == {"q.ckpt", name}
    assert graphs == ["graph, nms none", f"graph, nms {nms}"]  # all boxes, and the file itself
    assert (tmp_path / name).read_text() == f"graph, nms {nms}"
    said = capsys.readouterr()
    assert all(str(each) in said.out for each in found)  # the tables show what is wrong
    if problem:
        assert problem in said.err
        assert f"The file is kept as {tmp_path / name}." in said.err
    else:
        assert said.out.splitlines()[-1] == f"verified and written to {tmp_path / name}"


def test_a_file_that_nobody_verifies_is_written_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detlit.cli.quantize.export_onnx", write_graph)
    monkeypatch.setattr("detlit.cli.quantize._verify", None)
    assert run(tmp_path / "q.ckpt", "--val_batches", "0", "--onnx", str(tmp_path / "q.onnx")) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"q.ckpt", "q.onnx"}
    assert capsys.readouterr().out.splitlines()[-1] == f"written to {tmp_path / 'q.onnx'}"


@pytest.mark.slow
def test_layers_are_ranked_by_the_map_they_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "q.ckpt", "--rank", "map", "--val_batches", "1", "--skip", '["neck", "head"]') == 0
    out = capsys.readouterr().out
    head, *rows = out.partition("\n\n")[2].partition("\n\n")[0].splitlines()
    assert head.split() == ["layer", "drop"]
    drops = [float(row.split()[1]) for row in rows]
    assert len(drops) > 20
    assert drops == sorted(drops, reverse=True)
    assert drops[0] > 0


def test_what_is_not_installed_is_missed_before_anything_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detlit.cli.quantize.find_spec", lambda name: None if name == "onnxruntime" else name)
    assert run(tmp_path / "q.ckpt", "--onnx", str(tmp_path / "q.onnx"), "--verify") == 1
    assert "--verify needs onnxruntime: pip install 'detlit[onnx]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_a_validation_split_the_onnx_file_is_verified_on_training_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[torch.Tensor] = []
    compared: list[np.ndarray[Any, Any]] = []

    def verify(_: object, path: Path, batches: list[torch.Tensor], float_path: Path, score: object) -> Verification:
        assert score is None
        assert len(batches[0]) == 1
        shown.extend(batches[1:])
        return GOOD

    def compare(_: object, session: object, pictures: list[np.ndarray[Any, Any]]) -> Comparison:
        compared.extend(pictures)
        return ALIKE

    monkeypatch.setattr("detlit.cli.quantize.export_onnx", write_graph)
    monkeypatch.setattr("detlit.cli.quantize.open_exported", Path)
    monkeypatch.setattr("detlit.cli.quantize.verify", verify)
    monkeypatch.setattr("detlit.cli.quantize.compare", compare)
    train = {"class_path": "ShapesDataset", "init_args": {"num_images": 8, "image_size": 128}}
    data = ["--data", json.dumps({"train": train, "val": None, "seed": 3})]
    assert run(tmp_path / "q.ckpt", *data, "--onnx", str(tmp_path / "q.onnx"), "--verify") == 0
    dataset = ShapesDataset(8, image_size=128)
    pictures = [dataset.load_image(index).transpose(2, 0, 1) for index in range(8)]
    order = np.random.default_rng(3).permutation(8)
    assert np.array_equal(torch.cat(shown), [pictures[index] for index in order])
    assert np.array_equal(np.stack(compared).transpose(0, 3, 1, 2), pictures)


@pytest.mark.slow
def test_layers_stay_in_floating_point_until_the_drop_is_small(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "q.ckpt", "--weight_bits", "4", "--max_drop", "0.02", "--val_batches", "13") == 0
    out = capsys.readouterr().out
    assert "in floating point: " in out
    drop = float(out.rpartition("(")[2].partition(")")[0])
    assert drop >= -0.02


def test_the_data_can_be_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = {"class_path": "ShapesDataset", "init_args": {"num_images": 8, "image_size": 64}}
    data = ["--data", "shapes", "--data.train", json.dumps(train), "--data.val", json.dumps(train)]
    assert run(tmp_path / "q.ckpt", *data) == 0
    assert run(tmp_path / "r.ckpt", "--data", "shapez") == 2
    assert "there is no data config shapez" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--backend", "gpu"], 2, "backend"),
        (["--skip", '["stemm"]'], 2, "skip names 'stemm'"),
        (["--verify"], 2, "--verify compares the ONNX file and none is asked for"),
        (["--nms", "batch"], 2, "--nms batch is of the ONNX file and none is asked for"),
        (["--rank", "map", "--val_batches", "0"], 2, "--max_drop and --rank map measure the mAP"),
        (["--weight_bits", "16"], 2, "weight_bits=16 is out of range"),
        (["--ckpt_path", "no.ckpt"], 1, "there is no checkpoint no.ckpt"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str], status: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        returned = run(tmp_path / "q.ckpt", *arguments)
    except SystemExit as left:
        returned = int(left.code or 0)
    assert returned == status
    assert message in capsys.readouterr().err
    assert not (tmp_path / "q.ckpt").exists()


def test_nothing_is_overwritten_or_quantized_twice(
    quantized: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(quantized) == 2
    assert "q.ckpt already: choose another name" in capsys.readouterr().err
    assert main(["quantize", "--ckpt_path", str(quantized), "--output", str(tmp_path / "x.ckpt"), *SMALL]) == 2
    assert "quantized already" in capsys.readouterr().err
