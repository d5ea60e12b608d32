"""The report of an evaluation: what it says, shows and writes."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from detlit.errors import ImageReadError
from detlit.metrics import quality_report
from detlit.metrics.tables import select
from detlit.reports.evaluation import write_evaluation
from detlit.reports.evaluation_charts import heat_map, lines, reliability
from detlit.reports.evaluation_pictures import missed_objects, mistake_pictures, wrong_detections
from detlit.reports.evaluation_tables import STATISTIC_NAMES, class_rows, class_table, number, statistics_table
from tests.metrics.test_average_precision import detections, objects
from tests.metrics.test_quality import street
from tests.reports.test_html import Tags

RED = (255, 45, 85)
NO_DETECTIONS = select(street().detections, np.zeros(0, dtype=np.int64))
NO_OBJECTS = select(street().objects, np.zeros(0, dtype=np.int64))


def grey(image: int) -> NDArray[np.uint8]:
    return np.full((400, 500, 3), 128, dtype=np.uint8)


def test_the_report_is_two_files_and_needs_nothing_else(tmp_path: Path) -> None:
    path = write_evaluation(street(), tmp_path / "new", "A <street>", "best.ckpt", grey, lambda image: f"{image}.jpg")
    assert sorted(file.name for file in path.parent.iterdir()) == ["metrics.json", "report.html"]
    html = path.read_text(encoding="utf-8")
    words = " ".join(Tags(html).words)
    assert "A <street>" in words
    assert "best.ckpt" in words
    assert "<script" not in html
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", html)
    assert "prefers-color-scheme: dark" in html


def test_metrics_json_is_the_report_as_plain_data(tmp_path: Path) -> None:
    write_evaluation(street(), tmp_path, "street")
    content = json.loads((tmp_path / "metrics.json").read_text())
    expected = {"title": "street", "subtitle": "", **street().to_dict()}
    assert content == json.loads(json.dumps(expected))
    assert content["statistics"].keys() == STATISTIC_NAMES.keys()


def test_the_overview_counts_right_and_wrong(tmp_path: Path) -> None:
    page = write_evaluation(street(), tmp_path, "street").read_text()
    assert "At a score threshold of 0.550, 1 objects are found, 3 are missed, and 3 detections are wrong." in page


def test_the_two_counts_of_missed_objects_are_told_apart(tmp_path: Path) -> None:
    page = write_evaluation(street(), tmp_path, "street").read_text()
    assert (street().overall.at_threshold.false_negatives, street().errors.counts_above["missed"]) == (3, 2)
    assert "no detection is about; of those missed above, some are found in another class or place" in page


def test_pictures_are_there_only_if_images_are(tmp_path: Path) -> None:
    sections = ("Worst false positives", "Worst misses")
    assert all(title not in write_evaluation(street(), tmp_path, "").read_text() for title in sections)
    page = write_evaluation(street(), tmp_path, "", "", grey, num_pictures=2).read_text()
    assert all(f">{title}</h2>" in page for title in sections)
    assert page.count("<img") == 4


def test_wrong_detections_say_what_they_are() -> None:
    captions = [mistake.caption for mistake in wrong_detections(street())]
    assert captions == [
        "bus 0.80 is a car",
        "person 0.70 where nothing is annotated",
        "person 0.60 on a person that a better detection has found",
    ]  # the localisation error is below the threshold of 0.55


def test_nearly_right_detections_say_how_near() -> None:
    truth = objects([(0, 0, [0, 0, 100, 100])])
    found = detections([(0, 0, 0.9, [0, 0, 100, 30]), (0, 1, 0.8, [0, 0, 100, 25])])
    report = quality_report(found, truth, num_images=1, class_names=["cat", "dog"], score_threshold=0.1)
    assert [mistake.caption for mistake in wrong_detections(report)] == [
        "cat 0.90 on a cat, but with IoU 0.30",
        "dog 0.80 near a cat, with IoU 0.25",
    ]


def test_misses_are_in_the_order_of_their_scores_and_sizes() -> None:
    truth = objects([(0, 0, [0, 0, 40, 80]), (0, 1, [200, 0, 100, 100]), (1, 2, [0, 0, 20, 20]), (1, 2, [50, 0, 9, 9])])
    found = detections([(0, 0, 0.9, [0, 0, 40, 80]), (0, 1, 0.2, [200, 0, 100, 100]), (1, 2, 0.1, [50, 0, 9, 9])])
    report = quality_report(found, truth, num_images=2, class_names=["person", "car", "bus"], score_threshold=0.5)
    missed = missed_objects(report)
    assert [mistake.caption for mistake in missed] == [
        "bus not found at any score",
        "bus found with a score of 0.10 only",
        "car found with a score of 0.20 only",
    ]
    assert [mistake.detection for mistake in missed] == [-1, 2, 1]


def marked(image: NDArray[np.uint8]) -> int:
    return int((np.abs(image.astype(int) - RED).sum(axis=2) < 30).sum())


def test_truth_is_on_the_left_and_the_detection_on_the_right() -> None:
    report = street()
    confused, background, *_ = mistake_pictures(report, wrong_detections(report), grey, str, 9)
    for picture, left_is_marked in ((confused, True), (background, False)):
        half = picture.image.shape[1] // 2
        assert (marked(picture.image[:, :half]) > 0) == left_is_marked
        assert marked(picture.image[:, half:]) > 0
    assert background.caption == "person 0.70 where nothing is annotated · 1"
    missed = mistake_pictures(report, [m for m in missed_objects(report) if m.image == 1], grey, str, 9)[0].image
    assert marked(missed[:, : missed.shape[1] // 2]) > 0
    assert marked(missed[:, missed.shape[1] // 2 :]) == 0


def test_an_image_is_shown_twice_at_most_and_left_out_if_it_cannot_be_read() -> None:
    found = detections(
        [(0, 0, 0.9 - 0.1 * row, [60.0 * row, 0, 40, 40]) for row in range(4)] + [(1, 0, 0.1, [0, 0, 9, 9])]
    )
    report = quality_report(found, NO_OBJECTS, num_images=2, score_threshold=0.0)

    def first_is_broken(image: int) -> NDArray[np.uint8]:
        if image == 0:
            raise ImageReadError("broken")
        return grey(image)

    wrong = wrong_detections(report)
    assert [picture.caption[-1] for picture in mistake_pictures(report, wrong, grey, str, 9)] == ["0", "0", "1"]
    assert len(mistake_pictures(report, wrong, grey, str, 2)) == 2
    assert [picture.caption[-1] for picture in mistake_pictures(report, wrong, first_is_broken, str, 9)] == ["1"]


@pytest.mark.parametrize("box", [[0, 0, 3, 3], [497, 397, 3, 3], [-50, -50, 900, 900], [600, 500, 5, 5]])
def test_any_box_can_be_shown(box: list[float]) -> None:
    report = quality_report(detections([(0, 0, 0.9, box)]), NO_OBJECTS, num_images=1, score_threshold=0.5)
    (picture,) = mistake_pictures(report, wrong_detections(report), grey, str, 1)
    assert picture.image.shape[0] >= 32
    assert 100 <= picture.image.shape[1] <= 610


def test_nothing_at_all_makes_a_report(tmp_path: Path) -> None:
    report = quality_report(NO_DETECTIONS, NO_OBJECTS, num_images=0)
    page = write_evaluation(report, tmp_path, "empty", "", grey).read_text()
    Tags(page)
    assert "nan" not in page
    assert json.loads((tmp_path / "metrics.json").read_text())["overall"]["at_threshold"]["f1"] is None


def test_many_classes_are_abridged(tmp_path: Path) -> None:
    truth = objects([(0, label, [9 * label, 0, 8, 8]) for label in range(60)])
    found = detections([(0, (label + (label > 50)) % 60, 0.9, [9 * label, 0, 8, 8]) for label in range(60)])
    page = write_evaluation(quality_report(found, truth, num_images=1), tmp_path, "many").read_text()
    Tags(page)
    assert "confusion matrix of 40 classes" in page
    assert "<td>class_51</td><td>class_52</td>" in page  # the table of the most frequent confusions


def test_lines_go_where_the_numbers_say_and_stop_at_gaps() -> None:
    x, y = np.array([0.0, 0.5, 0.75, 1.0]), np.array([0.0, 1.0, np.nan, 0.5])
    svg = lines([("one", x, y)], "x", "y", mark=0.5)
    assert 'd="M34.0 230.0L182.0 24.0M330.0 127.0"' in svg
    assert 'x1="182.0"' in svg  # the mark
    assert "one" in svg
    assert "nan" not in svg
    assert lines([("one", x, y)], "x", "y").count("dasharray") == 0
    assert "other" in lines([("one", x, y), ("other", x, y)], "x", "y")


def test_reliability_draws_the_bins_that_hold_something() -> None:
    svg = reliability(np.array([0.0, 0.5, 1.0]), np.array([np.nan, 0.25]), np.array([0, 8]))
    assert svg.count('class="bar"') == 1
    assert "score 0.5 to 1.0: 8 detections, 0.250 of them right" in svg


def test_the_confusion_matrix_shows_counts_and_shares() -> None:
    svg = heat_map(np.array([[3, 1, 0], [0, 2, 2], [1, 0, 0]]), ["cat", "dog"])
    for title in (
        "cat as cat: 3 (75%)",
        "cat as dog: 1 (25%)",
        "dog as missed: 2 (50%)",
        "background as cat: 1 (100%)",
    ):
        assert title in svg
    assert svg.count("fill-opacity") == 5
    assert svg.count('fill="var(--error)"') == 3


def test_tables_say_a_dash_where_nothing_is_measured() -> None:
    assert [number(value) for value in (0.12345, -1.0, float("nan"))] == ["0.1235", "-", "-"]
    rows = {row[0]: list(row[1:]) for row in class_rows(street())}
    assert list(rows) == ["person", "car", "bus", "tram", "all"]
    assert rows["tram"] == [0] + ["-"] * 9
    assert rows["all"][5:8] == ["0.250", "0.250", "0.250"]
    assert statistics_table("", street().statistics).row_count == 12
    assert class_table(street()).row_count == 5
