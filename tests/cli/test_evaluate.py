"""``detlit evaluate``: equal to pycocotools on the files of any tool, without torch."""

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from numpy.typing import NDArray

from detlit.cli import main
from detlit.cli.evaluate import CocoObjects, evaluate
from detlit.errors import DatasetError
from detlit.metrics import DetectionTable, ObjectTable
from tests.metrics.random_tables import tables_for_files

Files = tuple[Path, Path]


def pycocotools_statistics(results: Path, annotations: Path) -> NDArray[np.float64]:
    """Return the twelve numbers as the files score in pycocotools."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        evaluation = COCOeval(truth, truth.loadRes(str(results)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    statistics: NDArray[np.float64] = evaluation.stats
    return statistics


def write_files(folder: Path, found: DetectionTable, truth: ObjectTable, num_images: int = 6) -> Files:
    """Write tables as the files of a tool: ids with gaps, images and results in an order of their own."""
    images = [{"id": 3 + 10 * image, "file_name": f"{image}.png"} for image in reversed(range(num_images))]
    objects = [
        {"id": row + 1, "image_id": 3 + 10 * int(truth.image[row]), "category_id": 1 + int(truth.label[row])}
        | {"iscrowd": int(truth.iscrowd[row]), "area": float(truth.area[row]), "bbox": truth.xywh[row].tolist()}
        for row in range(len(truth))
    ]
    categories = [{"id": 1 + label, "name": f"name {label}"} for label in range(12)]
    rows = [
        {"image_id": 3 + 10 * int(found.image[row]), "category_id": 1 + int(found.label[row])}
        | {"score": float(found.score[row]), "bbox": found.xywh[row].tolist()}
        for row in np.argsort(-found.image, kind="stable")
    ]
    files = folder / "results.json", folder / "instances.json"
    files[0].write_text(json.dumps(rows))
    files[1].write_text(json.dumps({"images": images, "annotations": objects, "categories": categories}))
    return files


@given(drawn=tables_for_files())
def test_files_score_as_in_pycocotools(
    drawn: tuple[DetectionTable, ObjectTable], tmp_path_factory: pytest.TempPathFactory
) -> None:
    results, annotations = write_files(tmp_path_factory.mktemp("files"), *drawn)
    if not len(drawn[0]):
        return  # pycocotools' loadRes cannot read an empty list
    report = evaluate(results, CocoObjects(annotations))
    expected = pycocotools_statistics(results, annotations)
    np.testing.assert_allclose(list(report.statistics.values()), expected, rtol=0, atol=1e-12)
    assert report.num_images == 6


def test_noisy_annotations_of_coco_score_as_in_pycocotools(data_folder: Path, tmp_path: Path) -> None:
    """Predictions of all degrees of rightness: moved, of another class, doubled, left out, on crowds too."""
    annotations = data_folder / "coco_tiny/annotations/instances_val2017.json"
    content = json.loads(annotations.read_text())
    categories = [row["id"] for row in content["categories"]]
    rng = np.random.default_rng(0)
    rows = []
    for row in content["annotations"]:
        for _ in range(rng.choice([0, 1, 1, 1, 2])):
            x, y, width, height = row["bbox"]
            dx, dy, dw, dh = rng.normal(0, 0.1, 4)
            box = [x + dx * width, y + dy * height, width * np.exp(dw), height * np.exp(dh)]
            category = row["category_id"] if rng.uniform() < 0.9 else int(rng.choice(categories))
            score = round(float(rng.uniform()), 2)  # ties
            rows.append({"image_id": row["image_id"], "category_id": category, "bbox": box, "score": score})
    results = tmp_path / "results.json"
    results.write_text(json.dumps(rows))
    found = list(evaluate(results, CocoObjects(annotations)).statistics.values())
    np.testing.assert_allclose(found, pycocotools_statistics(results, annotations), rtol=0, atol=1e-12)
    assert min(found) > 0.1


def small_files(folder: Path) -> Files:
    """Two images of 64 pixels; a cat is found, a dog is missed and a dog seen where there is none."""
    truth: dict[str, Any] = {
        "images": [{"id": key, "file_name": f"{key}.png", "height": 64, "width": 64} for key in (4, 2)],
        "categories": [{"id": 9, "name": "dog"}, {"id": 5, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 4, "category_id": 5, "bbox": [0, 0, 20, 20]},
            {"id": 2, "image_id": 2, "category_id": 9, "bbox": [30, 30, 20, 20]},
        ],
    }
    results = [
        {"image_id": 4, "category_id": 5, "bbox": [0, 0, 20, 20], "score": 0.9},
        {"image_id": 4, "category_id": 9, "bbox": [40, 40, 9, 9], "score": 0.8},
        {"image_id": 4, "category_id": 77, "bbox": [40, 40, 9, 9], "score": 0.8},
    ]
    (folder / "instances.json").write_text(json.dumps(truth))
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "images").mkdir()
    for key in (4, 2):
        cv2.imwrite(str(folder / f"images/{key}.png"), np.full((64, 64, 3), 90, dtype=np.uint8))
    return folder / "results.json", folder / "instances.json"


def test_the_command_prints_tables_and_writes_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, annotations = small_files(tmp_path)
    options = ["--per_class", "--report", str(tmp_path / "report"), "--images", str(tmp_path / "images")]
    assert main(["evaluate", str(results), str(annotations), *options]) == 0
    printed = capsys.readouterr()
    rows = [line.replace("│", " ").split() for line in printed.out.splitlines()]
    assert ["map_50", "AP", "at", "IoU", "0.50", "0.5000"] in rows
    assert ["cat", "1", "1.000", "1.000", "1.000", "1.000", "1.000"] in rows
    assert "1 detections of categories that the ground truth does not declare are left out" in printed.err
    page = (tmp_path / "report/report.html").read_text()
    assert page.count("<img") == 1  # the missed dog; at the best threshold no detection is wrong
    assert "dog not found at any score · 2.png" in page
    assert json.loads((tmp_path / "report/metrics.json").read_text())["num_images"] == 2


def test_the_score_threshold_can_be_chosen(tmp_path: Path) -> None:
    results, annotations = small_files(tmp_path)
    options = ["--report", str(tmp_path), "--score_threshold", "0.5"]
    assert main(["evaluate", str(results), str(annotations), *options]) == 0
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["score_threshold"] == 0.5
    assert content["overall"]["at_threshold"]["false_positives"] == 1


@pytest.mark.parametrize(
    ("images", "warning"),
    [
        ([4], "only 1 of the 3 images with objects have detections: are these of another split?"),
        ([4, 1], "only 1 of the 3 images with objects have detections: are these of another split?"),
        ([], "only 0 of the 3 images with objects have detections: are these of another split?"),
        ([4, 2, 2], ""),
    ],
    ids=["one of three", "one without objects", "none", "two of three"],
)
def test_results_of_few_of_the_annotated_images_are_told(
    images: list[int], warning: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, annotations = small_files(tmp_path)
    content = json.loads(annotations.read_text())
    content["images"] += [{"id": 3, "file_name": "3.png"}, {"id": 1, "file_name": "1.png"}]
    content["annotations"] += [{"id": 3, "image_id": 3, "category_id": 5, "bbox": [0, 0, 20, 20]}]
    annotations.write_text(json.dumps(content))
    row = {"category_id": 5, "bbox": [0, 0, 20, 20], "score": 0.9}
    results.write_text(json.dumps([{"image_id": image, **row} for image in images]))
    assert main(["evaluate", str(results), str(annotations)]) == 0
    assert capsys.readouterr().err == (f"detlit: warning: {warning}\n" if warning else "")


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--images", "."], 2, "--images . is for the report: add --report FOLDER"),
        (["--report", "r", "--images", "nowhere"], 2, "there is no folder nowhere"),
        (["--score_threshold", "2"], 2, "score_threshold=2.0 is no threshold"),
    ],
)
def test_options_that_cannot_work_are_one_line(
    options: list[str], status: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, annotations = small_files(tmp_path)
    assert main(["evaluate", str(results), str(annotations), *options]) == status
    assert message in capsys.readouterr().err


def test_missing_files_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, annotations = small_files(tmp_path)
    assert main(["evaluate", str(results), str(tmp_path / "no.json")]) == 1
    error = capsys.readouterr().err
    assert f"there is no annotation file {tmp_path / 'no.json'}: correct its path.\n" in error
    assert "data.root" not in error  # a key of other commands
    assert main(["evaluate", str(tmp_path / "no.json"), str(annotations)]) == 1
    assert f"there is no results file {tmp_path / 'no.json'}: correct its path.\n" in capsys.readouterr().err


def test_a_file_without_images_is_refused(tmp_path: Path) -> None:
    results, annotations = small_files(tmp_path)
    annotations.write_text(json.dumps({"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}))
    results.write_text("[]")
    with pytest.raises(DatasetError, match="lists no images"):
        evaluate(results, CocoObjects(annotations))


def test_torch_is_not_imported(tmp_path: Path) -> None:
    results, annotations = small_files(tmp_path)
    program = (
        "import sys; from detlit.cli import main; "
        f"main(['evaluate', {str(results)!r}, {str(annotations)!r}, '--report', {str(tmp_path)!r}]); "
        "print({'torch', 'lightning', 'torchmetrics'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
