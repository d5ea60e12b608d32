"""Colour changes."""

import cv2
import numpy as np
import pytest

from detlit.data.transforms import RandomHSV
from detlit.errors import ConfigurationError
from tests.golden_recipe import image_u8


def test_the_defaults_change_pixels() -> None:
    image = image_u8(16, 16)
    assert not np.array_equal(RandomHSV()(image, np.random.default_rng(0)), image)


def test_hue_goes_round_and_the_others_stop() -> None:
    hsv = np.array([[[170, 200, 100], [5, 100, 250], [90, 3, 8]]], dtype=np.uint8)
    image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    for seed in range(10):
        transform = RandomHSV(hgain=18, sgain=30, vgain=30)
        shifts = np.random.default_rng(seed)
        shifts.random()
        hue, saturation, value = np.rint(shifts.uniform(-1, 1, 3) * (18, 30, 30)).astype(int)
        before = cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(int)
        expected = np.stack(
            [
                (before[..., 0] + hue) % 180,
                np.clip(before[..., 1] + saturation, 0, 255),
                np.clip(before[..., 2] + value, 0, 255),
            ],
            axis=2,
        ).astype(np.uint8)
        result = transform(image, np.random.default_rng(seed))
        np.testing.assert_array_equal(result, cv2.cvtColor(expected, cv2.COLOR_HSV2RGB))


@pytest.mark.parametrize("gains", [(90, 0, 0), (0, 200, 0), (0, 0, 200)], ids=["hue", "saturation", "value"])
def test_each_gain_changes_something(gains: tuple[float, float, float]) -> None:
    image = image_u8(16, 16)
    results = [RandomHSV(*gains)(image, np.random.default_rng(seed)) for seed in range(3)]
    assert not any(np.array_equal(result, image) for result in results)


def test_probability_is_that_of_a_change() -> None:
    image = image_u8(4, 4)
    assert np.array_equal(RandomHSV(probability=0.0)(image, np.random.default_rng(0)), image)
    changed = sum(
        not np.array_equal(RandomHSV(probability=0.25)(image, np.random.default_rng(seed)), image)
        for seed in range(400)
    )
    assert 70 < changed < 130


def test_gains_that_would_do_nothing_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"hgain=0.5, sgain=0.5, vgain=0.5 are no gains"):
        RandomHSV(0.5, 0.5, 0.5)
    with pytest.raises(ConfigurationError, match="probability=2"):
        RandomHSV(probability=2)
