"""Files of detections in COCO's results format."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from detlit.errors import AnnotationError
from detlit.metrics import DetectionTable, ObjectTable
from detlit.metrics.results_file import read_results, write_results
from tests.metrics.random_tables import tables_for_files

IMAGES, LABELS = {7: 0, 9: 1}, {3: 0, 5: 1}
ENTRY: dict[str, Any] = {"image_id": 9, "category_id": 5, "bbox": [1, 2, 3, 4.5], "score": 0.5}


@given(drawn=tables_for_files())
def test_what_is_written_is_read_to_the_last_digit(
    drawn: tuple[DetectionTable, ObjectTable], tmp_path_factory: pytest.TempPathFactory
) -> None:
    written, _ = drawn
    path = tmp_path_factory.mktemp("results") / "new" / "results.json"
    ids, categories = np.arange(6) * 10 + 3, list(range(40, 60))
    write_results(path, written, ids, categories)
    images = {int(image_id): position for position, image_id in enumerate(ids)}
    found, left_out = read_results(path, images, {category: label for label, category in enumerate(categories)})
    assert left_out == 0
    for name in ("image", "label", "score", "xywh"):
        np.testing.assert_array_equal(getattr(found, name), getattr(written, name))


def read(folder: Path, content: Any, **names: Any) -> tuple[DetectionTable, int]:
    path = folder / "results.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_results(path, IMAGES, LABELS, **names)


def test_images_are_put_in_order_and_detections_of_one_stay_in_theirs(tmp_path: Path) -> None:
    rows = [{**ENTRY, "image_id": image, "score": score} for image, score in ((9, 0.1), (7, 0.2), (9, 0.3), (7, 0.4))]
    found, _ = read(tmp_path, rows)
    assert found.image.tolist() == [0, 0, 1, 1]
    assert found.score.tolist() == [0.2, 0.4, 0.1, 0.3]


def test_unknown_categories_are_left_out_and_counted(tmp_path: Path) -> None:
    found, left_out = read(tmp_path, [ENTRY, {**ENTRY, "category_id": 90}])
    assert (found.label.tolist(), left_out) == ([1], 1)


def test_names_win_over_ids(tmp_path: Path) -> None:
    named = {**ENTRY, "image_id": 1, "category_id": 1, "file_name": "a.jpg", "category_name": "dog"}
    names = {"image_names": {"b.jpg": 0, "a.jpg": 1}, "label_names": {"dog": 0, "cat": 1}}
    found, _ = read(tmp_path, [named], **names)
    assert (found.image.tolist(), found.label.tolist()) == ([1], [0])
    with pytest.raises(AnnotationError, match="image_id 1"):  # without names to go by, ids are all there is
        read(tmp_path, [named])


@pytest.mark.parametrize(("scores", "shown"), [([87.5, 3], "3 to 87.5"), ([-1.5, 0.5], "-1.5 to 0.5")])
def test_scores_that_only_rank_are_read_with_a_warning(scores: list[float], shown: str, tmp_path: Path) -> None:
    with pytest.warns(
        UserWarning, match=f"has scores from {shown}: average precision and recall depend on their order"
    ):
        found, _ = read(tmp_path, [{**ENTRY, "score": score} for score in scores])
    assert found.score.tolist() == scores


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"^there is no results file .*none\.json: correct its path\.$"):
        read_results(tmp_path / "none.json", IMAGES, LABELS)
    with pytest.raises(AnnotationError, match=r"cannot be read \(Is a directory\): give a readable file"):
        read_results(tmp_path, IMAGES, LABELS)


def test_no_detections_are_fine(tmp_path: Path) -> None:
    assert len(read(tmp_path, [])[0]) == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not valid json"),
        ({"annotations": []}, "is not a list of detections"),
        (
            [{**ENTRY, "image_id": 8}],
            "detection 0 is in an image with image_id 8, which the ground truth does not list",
        ),
        ([ENTRY, {**ENTRY, "bbox": [1, 2, 3]}], "detection 1 has bbox"),
        ([{**ENTRY, "bbox": [1, 2, 3, "4"]}], "detection 0 has bbox"),
        ('[{"image_id": 9, "category_id": 5, "bbox": [1, 2, 3, 4], "score": NaN}]', "and score nan"),
        (
            [ENTRY, {**ENTRY, "bbox": [9, 2, -3, 4]}],
            r"detection 1 has bbox \[9, 2, -3, 4\] with a negative side: write x",
        ),
        ([{**ENTRY, "bbox": [9, 2, 3, -0.5]}], "detection 0 has bbox .* with a negative side"),
        ('[{"image_id": 9, "category_id": 5, "bbox": [1, 2, 3, 4], "score": Infinity}]', "and score inf"),
        ('[{"image_id": 9, "category_id": 5, "bbox": [1, 2, 3, NaN], "score": 0.5}]', r"has bbox \[1, 2, 3, nan\]"),
        ([{**ENTRY, "image_id": [9]}], r"detection 0 has image_id \[9\]: write an id"),
        ([{"image_id": 9, "category_id": 5, "bbox": [1, 2, 3, 4]}], "detection 0 has no 'score'"),
        (
            [{**ENTRY, "category_id": 90}],
            "no category_id is known to the ground truth, the first is 90 and it has 3, 5",
        ),
    ],
)
def test_what_cannot_be_understood_is_named(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=message):
        read(tmp_path, content)
