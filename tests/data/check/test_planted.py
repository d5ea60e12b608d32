"""Faults planted in a sound data set, one by one and all together: each is found, and nothing else."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest

from tests.data.check.scenes import HEIGHT, WIDTH, Scene, found, picture

Plant = Callable[[Scene], None]


def missing(scene: Scene) -> None:
    scene.file("train", 1).unlink()


def truncated(scene: Scene) -> None:
    data = cv2.imencode(".jpg", picture(2))[1].tobytes()
    scene.file("train", 2).write_bytes(data[: len(data) // 2])


def leaked(scene: Scene) -> None:
    shutil.copy(scene.file("train", 3), scene.file("val", 1))


def recompressed(scene: Scene) -> None:
    brighter = cv2.convertScaleAbs(picture(4), alpha=0.9, beta=12)
    scene.file("val", 2).write_bytes(cv2.imencode(".jpg", brighter, [cv2.IMWRITE_JPEG_QUALITY, 60])[1].tobytes())


def without_area(scene: Scene) -> None:
    scene.box("train", 18)[2] = 0.0


def outside(scene: Scene) -> None:
    scene.box("train", 19)[0] = WIDTH + 10.0


def not_a_number(scene: Scene) -> None:
    scene.box("train", 20)[1] = float("nan")


def twice(scene: Scene) -> None:
    rows = scene.content["train"]["annotations"]
    rows.append({**rows[20], "id": 1000})


def of_two_classes(scene: Scene) -> None:
    rows = scene.content["train"]["annotations"]
    rows.append({**rows[21], "id": 1001, "category_id": rows[21]["category_id"] % 3 + 1})


def corners(scene: Scene) -> None:
    for row in scene.content["test"]["annotations"]:
        x, y, width, height = row["bbox"]
        row["bbox"] = [x, y, x + width, y + height]


def reordered(scene: Scene) -> None:
    categories = scene.content["val"]["categories"]
    categories[0]["name"], categories[1]["name"] = categories[1]["name"], categories[0]["name"]


def wrong_size(scene: Scene) -> None:
    scene.content["train"]["images"][6].update(width=2 * WIDTH, height=2 * HEIGHT)


PLANTS: dict[Plant, tuple[str, list[str]]] = {
    missing: ("missing-image", ["train/1.png"]),
    truncated: ("unreadable-image", ["train/2.png: the file ends early"]),
    leaked: ("leaked-image", ["train/3.png and val/1.png"]),
    recompressed: ("near-duplicate", ["train/4.png and val/2.png"]),
    without_area: ("zero-area-box", ["annotation 18 (train/5.png)"]),
    outside: ("outside-box", ["annotation 19 (train/5.png)"]),
    not_a_number: ("nan-box", ["annotation 20 (train/5.png)"]),
    twice: ("repeated-box", ["annotation 1000 (train/6.png)"]),
    of_two_classes: ("two-classes", ["annotation 1001 (train/6.png)"]),
    corners: ("other-format", []),
    reordered: ("class-order", ["val: 1 is 'dog', in train 'cat'"]),
    wrong_size: ("size-mismatch", ["train/7.png: 160x120, annotated as 320x240"]),
}


def agree(places: list[str], expected: list[str]) -> bool:
    return not expected or (
        len(places) == len(expected)
        and all(place.startswith(start) for place, start in zip(places, expected, strict=True))
    )


def test_a_sound_data_set_has_no_faults(tmp_path: Path) -> None:
    checkup = Scene(tmp_path).check()
    assert found(checkup) == {}
    assert checkup.statistics.objects.sum() == 64


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_single_fault_is_found_and_nothing_else(tmp_path: Path, plant: Plant) -> None:
    scene = Scene(tmp_path)
    plant(scene)
    code, places = PLANTS[plant]
    faults = found(scene.check())
    assert list(faults) == [code]
    assert agree(faults[code], places)


def test_all_twelve_faults_are_found_and_nothing_else(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    for plant in PLANTS:
        plant(scene)
    faults = found(scene.check())
    assert set(faults) == {code for code, _ in PLANTS.values()}
    for code, places in PLANTS.values():
        assert agree(faults[code], places), faults[code]


def test_boxes_given_by_corners_are_recognised(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    corners(scene)
    (finding,) = scene.check().findings
    assert finding.remark == (
        "test: the numbers fit the images as left, top, right, bottom, not as left, top, width, height"
    )
    assert len(finding.places) == 12  # the boxes at the left and top fit either way


def test_boxes_given_by_centres_are_recognised(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    for number, row in enumerate(scene.content["test"]["annotations"]):
        row["bbox"] = [20 + 10 * number % 120, 20 + 7 * number % 80, 36, 38]
    (finding,) = scene.check().findings
    assert finding.remark == (
        "test: the numbers fit the images as centre x, centre y, width, height, not as left, top, width, height"
    )


def test_few_boxes_are_not_taken_for_another_format(tmp_path: Path) -> None:
    scene = Scene(tmp_path, {"train": 2})
    for row in scene.content["train"]["annotations"]:
        x, y, width, height = row["bbox"]
        row["bbox"] = [x, y, x + width, y + height]
    assert set(found(scene.check())) == {"overhanging-box"}


def planted_box(scene: Scene, box: list[Any]) -> list[str]:
    scene.box("train", 7)[:] = box
    return list(found(scene.check()))


@pytest.mark.parametrize(
    ("box", "codes"),
    [
        ([10, 10, -5, 20], ["negative-box"]),
        ([10, 10, 20, 0], ["zero-area-box"]),
        ([-40, 10, 30, 20], ["outside-box"]),
        ([WIDTH, 10, 30, 20], ["outside-box"]),
        ([150, 10, 30, 20], ["overhanging-box"]),
        ([140, 10, 22, 20], []),  # 2 pixels, as rounding gives
        ([-20, -20, 220, 180], ["oversized-box"]),
        ([0, 0, WIDTH, HEIGHT], ["whole-image-box"]),
        ([5, 50, 150, 4.9], ["sliver-box"]),
        ([5, 50, 150, 5.1], []),
        ([0.2, 0.3, 0.1, 0.4], ["normalised-box"]),
        ([10, 10, float("inf"), 3], ["nan-box"]),
        ([10, 10, 3], ["malformed-record"]),
        (["10", 10, 3, 3], ["malformed-record"]),
        ([50, 50, 1.9, 10], ["small-object"]),  # 7.6 pixels at 640
        ([50, 50, 2.1, 10], []),
    ],
    ids=str,
)
def test_each_box_is_reported_for_its_gravest_fault(tmp_path: Path, box: list[Any], codes: list[str]) -> None:
    assert planted_box(Scene(tmp_path), box) == codes
