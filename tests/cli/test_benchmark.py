"""``detlit benchmark``."""

import json
from pathlib import Path

import pytest
import torch

from detlit.cli import main
from detlit.export import export_file
from tests.shapes_detector import CHECKPOINT, shapes_detector


def test_a_row_for_every_size_and_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "times.json"
    arguments = [
        "--ckpt_path",
        str(CHECKPOINT),
        "--batch",
        "1,2",
        "--size",
        "64,128",
        "--rounds",
        "3",
        "--device",
        "cpu",
    ]
    assert main(["benchmark", *arguments, "--output", str(output)]) == 0
    rows = json.loads(output.read_text())
    assert [(row["size"], row["batch"]) for row in rows] == [([s, s], b) for s in (64, 128) for b in (1, 2)]
    for row in rows:
        stages = row["preprocess"] + row["forward"] + row["postprocess"]
        assert 0 < stages < 2 * row["median"]
        assert row["median"] <= row["p90"]
        assert row["images_per_second"] == pytest.approx(1000 * row["batch"] / row["median"], rel=0.01)
    assert capsys.readouterr().out.count("\ntorch") == 4


@pytest.mark.slow
def test_files_are_made_and_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    arguments = ["--ckpt_path", str(CHECKPOINT), "--formats", "onnx,torch_export", "--rounds", "1", "--threads", "1"]
    assert main(["benchmark", *arguments]) == 0
    out = capsys.readouterr().out
    assert "\nonnx " in out
    assert "\ntorch_export " in out


@pytest.mark.skipif(not hasattr(torch.onnx, "ops"), reason="export needs torch 2.8")
def test_a_file_of_one_shape_is_not_asked_for_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = export_file(shapes_detector(), tmp_path / "model.pt2", format="torch_export", dynamic=())
    assert main(["benchmark", "--ckpt_path", str(path), "--rounds", "1"]) == 0
    for option in ("--batch", "--size"):
        assert main(["benchmark", "--ckpt_path", str(path), option, "64"]) == 2
        assert "leave --batch or --size out, or export it with --dynamic" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either --ckpt_path or --model"),
        (["--model", "resnet"], "there is no model resnet: choose among ppyoloe_l"),
        (["--model", "yolo_nas_n", "--batch", "none"], "--batch none is no list of positive numbers"),
        (["--model", "yolo_nas_n", "--rounds", "0"], "rounds=0 measures nothing"),
        (["--model", "yolo_nas_n", "--threads", "0"], "threads=0 computes nothing"),
    ],
)
def test_mistakes_are_one_sentence(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", *arguments]) == 2
    assert message in capsys.readouterr().err
