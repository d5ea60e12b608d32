"""The letterbox: bit for bit what the published weights were trained with, and where boxes go."""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detlit.data.sample import Sample
from detlit.data.transforms import Letterbox, letterbox
from detlit.structures import Preprocessing
from tests.golden_recipe import image_u8
from tests.reference import transforms as reference

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[2] / "golden" / "transforms.json").read_text())


def cases(pipeline: str) -> list[Any]:
    return [pytest.param(case, id=f"{case['height']}x{case['width']}") for case in GOLDEN[pipeline]]


@pytest.mark.parametrize("case", cases("yolo_nas"))
def test_636_centred_in_640_equals_yolo_nas_bit_for_bit(case: dict[str, Any]) -> None:
    canvas = letterbox(image_u8(case["height"], case["width"]), Preprocessing(content_size=(636, 636)))
    assert zlib.crc32(canvas.tobytes()) == case["crc32"]


@pytest.mark.parametrize("case", cases("yolox"))
def test_top_left_padding_equals_yolox(case: dict[str, Any]) -> None:
    canvas = letterbox(image_u8(case["height"], case["width"]), Preprocessing(anchor="top_left"))
    assert canvas.mean() == pytest.approx(case["mean"], abs=1e-9)


@pytest.mark.parametrize("case", cases("ppyoloe"))
def test_stretching_equals_ppyoloe(case: dict[str, Any]) -> None:
    canvas = letterbox(image_u8(case["height"], case["width"]), Preprocessing(keep_ratio=False))
    normalize = GOLDEN["ppyoloe_normalize"]
    normalized = (canvas[..., ::-1] - np.array(normalize["mean"])) / normalize["std"]
    assert normalized.mean() == pytest.approx(case["mean"], abs=1e-8)


@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing(size=(32, 64)),
        Preprocessing(size=(64, 32), content_size=(60, 31), anchor="top_left", pad_value=7),
        Preprocessing(size=(64, 64), keep_ratio=False),
    ],
    ids=["wide", "tall", "stretched"],
)
@pytest.mark.parametrize("size", [(19, 23), (50, 90), (64, 64)])
def test_equals_the_slow_twin(preprocessing: Preprocessing, size: tuple[int, int]) -> None:
    image = image_u8(*size)
    expected = reference.letterbox(image, preprocessing.geometry(*size), *preprocessing.size, preprocessing.pad_value)
    np.testing.assert_allclose(letterbox(image, preprocessing), expected, atol=1.0)


def test_boxes_follow_the_content() -> None:
    image = np.zeros((20, 40, 3), dtype=np.uint8)
    image[5:10, 8:24] = 200
    sample = Sample(
        image=image,
        boxes=np.array([[8.0, 5.0, 24.0, 10.0]]),
        labels=np.array([0]),
        iscrowd=np.array([False]),
        image_id=1,
        dataset_index=0,
        path="",
        orig_size=(20, 40),
    )
    boxed = Letterbox(Preprocessing(size=(64, 64)))(sample)
    assert boxed.geometry == (1.6, 1.6, 0.0, 16.0)
    np.testing.assert_allclose(boxed.boxes, [[12.8, 24.0, 38.4, 32.0]])
    rows, columns = np.nonzero(boxed.image[..., 0] > 150)
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (13, 24, 38, 32)
    np.testing.assert_array_equal(sample.boxes, [[8.0, 5.0, 24.0, 10.0]])
