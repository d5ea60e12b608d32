"""What validate and test leave behind: predictions that score the same again, a report, a table."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from detlit.callbacks import EvaluationReport
from detlit.cli import main
from detlit.cli.evaluate import CocoObjects, evaluate
from detlit.data import CocoDataset, ConcatDataset, DetectionDataModule
from detlit.errors import ConfigurationError
from detlit.metrics import COCO_STATISTICS, CocoMeanAveragePrecision, DetectionMetric
from detlit.module import DetectionModule
from detlit.structures import Batch
from tests.oracle import write_grey_images
from tests.shapes_detector import CHECKPOINT, shapes_data
from tests.test_module import make_trainer, oracle_data, oracle_module, shapes, shapes_module


def careless(root: Path, data: DetectionDataModule) -> DetectionModule:
    """Return a detector that misses an object, takes one for another class and sees one where there is none."""
    module = oracle_module(root, data)
    detector: Any = module.detector
    detector.objects[0].pop(0)
    label, box = detector.objects[1][0]
    detector.objects[1][0] = (3 - label, box)
    detector.objects[2] = [(1, [4.0, 4.0, 40.0, 40.0])]  # the third image has none
    return module


def run(folder: Path, stage: str, callback: EvaluationReport, **arguments: Any) -> dict[str, float]:
    """Evaluate the careless detector and return what was logged."""
    write_grey_images(folder / "data")
    data = oracle_data(folder / "data", 3)
    trainer = make_trainer(folder, callbacks=[callback], **arguments)
    (logged,) = getattr(trainer, stage)(careless(folder / "data", data), data, verbose=False)
    return {name.partition("/")[2]: value for name, value in logged.items()}


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_saved_predictions_score_as_the_run_did(stage: str, tmp_path: Path) -> None:
    logged = run(tmp_path, stage, EvaluationReport(save_predictions=tmp_path / "new" / "results.json"))
    report = evaluate(tmp_path / "new" / "results.json", CocoObjects(tmp_path / "data/instances.json"))
    assert [float(torch.tensor(report.statistics[name])) for name in COCO_STATISTICS] == [
        logged[name] for name in COCO_STATISTICS
    ]
    assert 0.3 < logged["map"] < 0.9
    rows = json.loads((tmp_path / "new" / "results.json").read_text())
    assert {row["category_id"] for row in rows} == {3, 7}
    assert {row["image_id"] for row in rows} <= set(range(100, 110))


def test_the_report_shows_the_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logged = run(tmp_path, "validate", EvaluationReport(tmp_path / "report", per_class=True, num_pictures=1))
    content = json.loads((tmp_path / "report/metrics.json").read_text())
    assert float(torch.tensor(content["statistics"]["map"])) == logged["map"]
    assert [quality["name"] for quality in content["classes"]] == ["unused", "left", "right"]
    page = (tmp_path / "report/report.html").read_text()
    assert page.count("<img") == 2
    assert "left not found at any score · 1.png" in page
    assert f"scored on {tmp_path / 'data/instances.json'}" in page
    printed = capsys.readouterr().out
    assert "│ right" in printed
    assert f"report: {tmp_path / 'report/report.html'}" in printed


def test_pictures_can_be_left_out(tmp_path: Path) -> None:
    run(tmp_path, "validate", EvaluationReport(tmp_path / "report", num_pictures=0))
    assert "<img" not in (tmp_path / "report/report.html").read_text()
    with pytest.raises(ConfigurationError, match="num_pictures=-1 is negative"):
        EvaluationReport(num_pictures=-1)


def test_nothing_is_written_or_printed_unless_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, "validate", EvaluationReport())
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert capsys.readouterr().out == ""


def test_fit_is_left_alone(tmp_path: Path) -> None:
    data = shapes()
    trainer = make_trainer(tmp_path, callbacks=[EvaluationReport(tmp_path / "report")], limit_train_batches=1)
    trainer.fit(shapes_module(data), data)
    assert not (tmp_path / "report").exists()


def test_each_loader_has_files_of_its_own_and_needs_no_pictures(tmp_path: Path) -> None:
    write_grey_images(tmp_path / "data")
    data = oracle_data(tmp_path / "data", 4)
    data.setup("validate")
    whole = data.val_dataloader()
    assert isinstance(whole, DataLoader)
    part: DataLoader[Any] = DataLoader(Subset(whole.dataset, [0, 3]), batch_size=2, collate_fn=whole.collate_fn)
    callback = EvaluationReport(tmp_path / "report", tmp_path / "results.json")
    trainer = make_trainer(tmp_path, callbacks=[callback])
    trainer.validate(careless(tmp_path / "data", data), [whole, part], verbose=False)
    assert json.loads((tmp_path / "report/metrics.json").read_text())["num_images"] == 10
    assert json.loads((tmp_path / "report/val_1/metrics.json").read_text())["num_images"] == 2
    assert "<img" not in (tmp_path / "report/val_1/report.html").read_text()  # a Subset has no load_image
    rows = json.loads((tmp_path / "results_1.json").read_text())
    assert {row["category_id"] for row in rows} == {2, 3}  # nor ids: they count the classes from 1


@pytest.mark.filterwarnings("ignore:.*DataLoader")
def test_image_ids_that_repeat_are_replaced_with_a_warning(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_grey_images(root)
    half = CocoDataset("instances.json", "images", root=str(root))
    both = DetectionDataModule(val=ConcatDataset([half, half]), image_size=(128, 96), batch_size=5, num_workers=0)
    trainer = make_trainer(tmp_path, callbacks=[EvaluationReport(save_predictions=tmp_path / "results.json")])
    with pytest.warns(UserWarning, match="ids are missing or repeat"):
        trainer.validate(oracle_module(root, both), both, verbose=False)
    found = {row["image_id"] for row in json.loads((tmp_path / "results.json").read_text())}
    assert found == {number for number in range(1, 21) if number % 10 not in (3, 6, 9)}


class CountingMetric(DetectionMetric):
    """A metric that keeps no detections."""

    def update(self, detections: Any, targets: Any) -> None:
        pass

    def compute(self) -> dict[str, Tensor]:
        return {"count": torch.tensor(0.0)}


def test_a_metric_that_keeps_no_detections_is_refused(tmp_path: Path) -> None:
    data = shapes()
    trainer = make_trainer(tmp_path, callbacks=[EvaluationReport(per_class=True)])
    with pytest.raises(ConfigurationError, match=r"CountingMetric does not: set model\.metric to CocoMean"):
        trainer.validate(shapes_module(data, metric=CountingMetric()), data, verbose=False)


def test_a_folder_that_cannot_be_made_is_known_before_the_first_batch(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    data = shapes()
    trainer = make_trainer(tmp_path, callbacks=[EvaluationReport(tmp_path / "file" / "report")])
    module = shapes_module(data)
    module.validation_step = lambda *_: pytest.fail("too late")  # type: ignore[method-assign]
    with pytest.raises(NotADirectoryError):
        trainer.validate(module, data, verbose=False)


@pytest.mark.distributed
def test_the_first_of_two_processes_writes_for_both(tmp_path: Path) -> None:
    def callback(folder: Path) -> EvaluationReport:
        return EvaluationReport(folder / "report", folder / "results.json")

    alone, together = tmp_path / "alone", tmp_path / "together"
    run(alone, "validate", callback(alone))
    run(together, "validate", callback(together), strategy="ddp_fork", devices=2)
    assert (alone / "results.json").read_text() == (together / "results.json").read_text()
    numbers = [json.loads((folder / "report/metrics.json").read_text()) for folder in (alone, together)]
    assert numbers[0]["statistics"] == numbers[1]["statistics"]
    assert numbers[0]["confusion"] == numbers[1]["confusion"]
    assert (together / "report/report.html").read_text().count("<img") == (
        (alone / "report/report.html").read_text().count("<img")
    )


def test_the_flags_of_the_command_line_ask_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [
        "--report",
        str(tmp_path / "report"),
        "--save_predictions",
        str(tmp_path / "results.json"),
        "--per_class",
    ]
    quiet = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--data.num_workers=0"]
    assert main(["validate", "--ckpt_path", str(CHECKPOINT), "--trainer.limit_val_batches=2", *options, *quiet]) == 0
    assert (tmp_path / "report/report.html").stat().st_size < 15e6
    assert json.loads((tmp_path / "results.json").read_text())
    printed = capsys.readouterr().out
    assert "circle" in printed
    assert "val/map_50" in printed


# ------------------------------------------------------------------------------- the threshold in the checkpoint
def fitted(folder: Path, module: DetectionModule, data: DetectionDataModule, **arguments: Any) -> Trainer:
    trainer = make_trainer(folder, limit_train_batches=1, **arguments)
    trainer.fit(module, data)
    trainer.save_checkpoint(folder / "some.ckpt")
    return trainer


def test_fit_stores_the_threshold_of_the_greatest_f1(tmp_path: Path) -> None:
    data = shapes_data(val=16)
    module = DetectionModule.load_from_checkpoint(CHECKPOINT)
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    module.detector.head.requires_grad_(True)
    module.optimizer = lambda parameters: torch.optim.SGD(parameters, lr=0.0)
    fitted(tmp_path, module, data)
    stored = torch.load(tmp_path / "some.ckpt", weights_only=True)["detlit"]["score_threshold"]
    metric = CocoMeanAveragePrecision()
    module.eval()
    with torch.no_grad():
        for batch in data.val_dataloader():
            assert isinstance(batch, Batch)
            metric.update(module.predict_step(batch, 0), batch.targets)
    assert stored == module.score_threshold == pytest.approx(metric.compute_report().overall.best.score_threshold)
    assert 0.05 < stored < 0.95


def test_where_nothing_is_right_the_threshold_stays(tmp_path: Path) -> None:
    data = shapes()
    module = shapes_module(data)
    module.score_threshold = 0.4
    fitted(tmp_path, module, data)
    assert module.score_threshold == 0.4
    fitted(tmp_path, shapes_module(data), data)
    assert "score_threshold" not in torch.load(tmp_path / "some.ckpt", weights_only=True)["detlit"]


def test_classes_are_logged_by_their_names(tmp_path: Path) -> None:
    write_grey_images(tmp_path)
    data = oracle_data(tmp_path, 4)
    module = oracle_module(tmp_path, data)
    module._metrics[""] = CocoMeanAveragePrecision(per_class=True)
    (logged,) = make_trainer(tmp_path).validate(module, data, verbose=False)
    assert (logged["val/map/left"], logged["val/map/unused"]) == (1.0, -1.0)
