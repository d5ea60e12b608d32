"""Image files: faults, copies, and pictures that look the same."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from detlit.data.check.images import near_duplicates
from detlit.data.check.scan import Scan, scan_file
from tests.data.check.scenes import HEIGHT, WIDTH, Scene, found, picture


def test_a_copy_in_the_same_split_is_a_warning(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    shutil.copy(scene.file("train", 3), scene.file("train", 5))
    (finding,) = scene.check().findings
    assert (finding.code, finding.severity, finding.places) == (
        "repeated-file",
        "warning",
        ["train/3.png and train/5.png"],
    )


@pytest.mark.parametrize("seed", range(3))
def test_near_duplicates_are_those_of_a_slow_search(tmp_path: Path, seed: int) -> None:
    generator = np.random.default_rng(seed)
    scene = Scene(tmp_path, {"train": 6, "val": 5, "test": 4})
    scene.write()
    records = scene.check(read_images=False).records
    base = picture(seed, 32, 32)[..., 0].astype(np.float64)
    scans = []
    for number in range(15):
        thumbnail = base + generator.normal(0, generator.uniform(0, 60), (32, 32))
        scans.append(Scan(digest=bytes([number]), thumbnail=thumbnail.clip(0, 255).astype(np.uint8)))
    expected = set()
    for a in range(15):
        for b in range(a + 1, 15):
            one, other = scans[a].thumbnail, scans[b].thumbnail
            assert one is not None
            assert other is not None
            bits = sum(x != y for x, y in zip(slow_hash(one), slow_hash(other), strict=True))
            alike = np.corrcoef(one.reshape(-1), other.reshape(-1))[0, 1] >= 0.9
            if records.image_split[a] != records.image_split[b] and bits <= 10 and alike:
                expected.add((a, b))
    (finding,) = near_duplicates(records, scans)
    assert {tuple(pair) for pair in finding.images.reshape(-1, 2).tolist()} == expected
    assert 0 < len(expected) < 60


def slow_hash(thumbnail: NDArray[np.uint8]) -> list[bool]:
    small = cv2.resize(thumbnail, (9, 8), interpolation=cv2.INTER_AREA).tolist()
    return [row[column + 1] > row[column] for row in small for column in range(8)]


def test_plain_images_are_not_taken_for_near_duplicates(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    for split, level in (("train", 100), ("val", 101), ("test", 102)):
        cv2.imwrite(str(scene.file(split, 1)), np.full((HEIGHT, WIDTH, 3), level, np.uint8))
    assert found(scene.check()) == {}


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_a_scaled_image_is_a_near_duplicate(tmp_path: Path, scale: float) -> None:
    scene = Scene(tmp_path)
    size = (round(WIDTH * scale), round(HEIGHT * scale))
    cv2.imwrite(str(scene.file("test", 2)), cv2.resize(picture(6), size, interpolation=cv2.INTER_AREA))
    scene.content["test"]["images"][1].update(width=size[0], height=size[1])
    scene.content["test"]["annotations"] = scene.content["test"]["annotations"][:1]
    (place,) = found(scene.check())["near-duplicate"]
    assert place == "train/6.png and test/2.png (correlation 1.00)"


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.97])
def test_a_cut_off_file_is_unreadable(tmp_path: Path, suffix: str, part: float) -> None:
    file = tmp_path / f"a{suffix}"
    data = cv2.imencode(suffix, picture(0))[1].tobytes()
    file.write_bytes(data)
    assert scan_file(str(file), (HEIGHT, WIDTH)).fault == ""
    file.write_bytes(data[: round(len(data) * part)])
    assert scan_file(str(file), (HEIGHT, WIDTH)).fault == "unreadable"


def test_a_jpeg_with_bytes_after_its_end_is_readable(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(cv2.imencode(".jpg", picture(0))[1].tobytes() + b"trailer of a phone" * 100)
    assert scan_file(str(file), (HEIGHT, WIDTH)).fault == ""


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0" + bytes([orientation]) + b"\0\0\0\0\0\0\0"
    segment = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + jpeg[2:]


def test_the_size_before_or_after_the_turn_of_exif_is_right(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(with_orientation(cv2.imencode(".jpg", picture(0))[1].tobytes(), 6))
    assert scan_file(str(file), (WIDTH, HEIGHT)).fits
    assert scan_file(str(file), (HEIGHT, WIDTH)).fits
    assert not scan_file(str(file), (HEIGHT, WIDTH + 1)).fits
    file.write_bytes(cv2.imencode(".jpg", picture(0))[1].tobytes())
    assert not scan_file(str(file), (WIDTH, HEIGHT)).fits


def test_sizes_that_are_not_annotated_are_those_of_the_files(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    for image in scene.content["train"]["images"]:
        del image["width"], image["height"]
    scene.box("train", 1)[0] = WIDTH + 1.0
    assert list(found(scene.check())) == ["outside-box"]
    assert found(scene.check(read_images=False)) == {}


def test_without_reading_images_only_missing_ones_are_reported(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.file("train", 1).unlink()
    scene.file("train", 2).write_bytes(b"no image")
    assert found(scene.check(read_images=False)) == {"missing-image": ["train/1.png"]}
