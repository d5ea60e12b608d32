"""The guides: their code runs, and what they name exists."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import lightning.pytorch.loggers
import numpy as np
import pytest
import torch
from PIL import Image

import detlit
import detlit.data.transforms
from detlit.cli import main
from tests.models.test_super_gradients import published_state
from tests.shapes_detector import CHECKPOINT

GUIDES = Path(__file__).parents[1] / "notebooks" / "guides"
MIGRATION = GUIDES / "migrating_from_supergradients.md"

SUPER_GRADIENTS = """
    data_dir images_dir json_annotation_file input_dim ignore_empty_annotations with_crowd all_classes_list transforms
    DetectionRandomAffine degrees scales shear target_size filter_box_candidates border_value
    DetectionHSV prob hgain vgain sgain DetectionHorizontalFlip DetectionPaddedRescale max_targets
    DetectionStandardize max_value DetectionTargetsFormatTransform
    warmup_initial_lr initial_lr lr_mode cosine_final_lr_ratio optimizer zero_weight_decay_on_bias_and_bn
    lr_warmup_epochs warmup_mode optimizer_params ema average_best_models ema_params beta decay_type max_epochs
    mixed_precision loss criterion_params num_classes valid_metrics_list DetectionMetrics_050 score_thres
    top_k_predictions num_cls normalize_targets include_classwise_ap class_names post_prediction_callback
    PPYoloEPostPredictionCallback score_threshold nms_top_k max_predictions nms_threshold metric_to_watch
    models.get arch_params checkpoint_path pretrained_weights checkpoint_num_classes
    register_sg_logger sg_logger register_callback phase_callbacks stop_training model.predict
    fuse_model .show() .save(path) experiment_name ckpt_root_dir training_params batch_accumulate clip_grad_norm sync_bn
    greater_metric_to_watch_is_better multi_label_per_box class_agnostic_nms use_static_assigner
    coco_detection_yolo_format_train dataset_params dataloader_params model.export set_dataset_processing_params
    Trainer.qat Trainer.ptq find_detection_score_threshold
"""
"""What the usual fine-tuning script says, and the names that people look up."""


def blocks(language: str) -> list[str]:
    """Return the migration guide's code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", MIGRATION.read_text(), flags=re.MULTILINE | re.DOTALL)


def replaced(text: str, replacements: dict[str, str]) -> str:
    """Make a run small; a replacement that finds nothing is out of date."""
    for old, new in replacements.items():
        assert old in text
        text = text.replace(old, new)
    return text


def test_every_parameter_has_its_line() -> None:
    text = MIGRATION.read_text()
    assert [name for name in SUPER_GRADIENTS.split() if name not in text] == []


@pytest.mark.parametrize("guide", sorted(GUIDES.glob("*.md")), ids=lambda path: path.stem)
def test_tables_have_as_many_columns_as_their_heads(guide: Path) -> None:
    for table in re.findall(r"(?:^\|.*\n)+", guide.read_text(), flags=re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1, table


def test_what_the_tables_offer_exists() -> None:
    homes = (detlit, detlit.data.transforms, lightning.pytorch.loggers, torch.optim)
    offered = {
        name
        for row in re.findall(r"^\|.*?[^|]\|(.*)\|$", MIGRATION.read_text(), flags=re.MULTILINE)
        for code in re.findall(r"`([^`]*)`", row)
        for name in re.findall(r"(?<![\w./])[A-Z]+[a-z]+[A-Z]\w*|\bEMA\b|\bMosaic\b|\bMixup\b", code)
    }
    assert len(offered) > 30
    assert sorted(name for name in offered if not any(hasattr(home, name) for home in homes)) == []


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory of someone who comes over: data, weights and pictures."""
    for split, folder in (("train", "train"), ("test", "test")):
        images = tmp_path / "datasets" / "images" / folder
        images.mkdir(parents=True)
        content: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "cell"}]}
        for number in range(1, 17):
            Image.fromarray(np.full((48, 64, 3), 10 * number, dtype=np.uint8)).save(images / f"{number}.png")
            content["images"].append({"id": number, "file_name": f"{number}.png", "height": 48, "width": 64})
            box = {"id": number, "image_id": number, "category_id": 1, "bbox": [8, 8, 30, 20], "area": 600}
            content["annotations"].append({**box, "iscrowd": 0})
        (tmp_path / "datasets" / f"{split}_annotations.coco.json").write_text(json.dumps(content))
    state = {name: torch.zeros(value.shape) for name, value in published_state("yolo_nas_s").items()}
    torch.save(state, tmp_path / "yolo_nas_s.pth")
    torch.save({"net": state}, tmp_path / "ckpt_best.pth")
    (tmp_path / "best.ckpt").write_bytes(CHECKPOINT.read_bytes())
    for folder_name in ("pictures", "predictions"):
        (tmp_path / folder_name).mkdir()
    for path in ("a.jpg", "b.jpg", "pictures/a.jpg"):
        Image.fromarray(np.zeros((48, 64, 3), dtype=np.uint8)).save(tmp_path / path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_commands_run(project: Path) -> None:
    (commands,) = blocks("bash")
    for line in commands.splitlines():
        program, *arguments = shlex.split(line)
        assert program == "detlit"
        assert main(arguments) == 0
    assert (project / "predictions" / "predictions.json").exists()


@pytest.mark.slow
def test_the_config_runs(project: Path) -> None:
    (config,) = blocks("yaml")
    (project / "run.yaml").write_text(replaced(config, {"640, 640": "64, 64", "16-mixed": "32-true"}))
    arguments = shlex.split(config.splitlines()[0].partition("detlit ")[2])
    small = ["--trainer.max_epochs=2", "--trainer.accelerator=cpu", "--data.batch_size=8", "--data.num_workers=0"]
    assert main([*arguments, *small]) == 0
    (average,) = project.rglob("average.ckpt")
    stored = torch.load(average, weights_only=True)["detlit"]
    assert stored["class_names"] == ["cell"]


@pytest.mark.slow
def test_the_scripts_run_one_after_another(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = {"(640, 640)": "(64, 64)", "max_epochs=10": "max_epochs=2", "16-mixed": "32-true"}
    script, *others = blocks("python")
    names: dict[str, Any] = {"__name__": "guide"}
    exec(replaced(script, small), names)
    assert names["trainer"].global_step == 2
    for text in others:
        exec(text, names)
    assert names["trainer"].global_step == 1
    assert "stopped after 1 steps" in capsys.readouterr().out
    assert {path.name for path in (project / "predictions").iterdir()} == {"a.jpg", "b.jpg"}
