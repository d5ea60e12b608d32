"""The checks of whole tables against one box at a time."""

import json
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from detlit.data.check import check_data
from detlit.data.check.coco import collect_coco
from detlit.structures import Preprocessing
from tests.reference.slow_box_checks import slow_box_faults

SIDE = 64
NUMBERS = st.sampled_from(
    [float("nan"), -300.0, -3.0, -1.0, 0.0, 0.5, 1.0, 1.5, 7.0, 9.0, 40.0, 61.0, 64.0, 65.0, 70.0]
)
OBJECTS = st.lists(st.tuples(st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS), st.integers(0, 1)), max_size=9)  # below FEW


@given(OBJECTS, st.lists(st.integers(0, 8), max_size=4))
def test_the_faults_are_those_of_one_box_at_a_time(
    objects: list[tuple[tuple[float, float, float, float], int]], repeats: list[int]
) -> None:
    rows = [*objects, *(objects[i] for i in repeats if i < len(objects))][:9]
    content = {
        "images": [{"id": 1, "file_name": "1.png", "width": SIDE, "height": SIDE}],
        "categories": [{"id": 0, "name": "a"}, {"id": 1, "name": "b"}],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": label, "bbox": list(box)}
            for number, (box, label) in enumerate(rows)
        ],
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "a.json")
        file.write_text(json.dumps(content))
        split = collect_coco("train", file, Path(folder))
    checkup = check_data([split], preprocessing=Preprocessing(size=(SIDE, SIDE)), read_images=False)
    found: list[set[str]] = [set() for _ in rows]
    for finding in checkup.findings:
        for row in finding.rows.tolist():
            found[row].add(finding.code)
    corners = [(x, y, x + width, y + height) for (x, y, width, height), _ in rows]
    assert found == slow_box_faults(corners, [label for _, label in rows], SIDE, SIDE)
