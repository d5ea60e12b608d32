"""Colour changes."""

import cv2
import numpy as np
import pytest
import torch

from detlit.data.transforms import BatchHSV, ChannelSwap, RandomHSV
from detlit.data.transforms.photometric import _shift_hsv, colour_matrix
from detlit.errors import ConfigurationError
from tests.golden_recipe import image_u8
from tests.reference import transforms as reference


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


@pytest.mark.parametrize("shifts", [(0, 0, 0), (40, 0, 0), (-17, 60, -30), (90, -255, 255), (5, -20, 200)])
def test_hsv_is_near_what_the_standard_library_computes(shifts: tuple[int, int, int]) -> None:
    image = image_u8(12, 17)
    changed = _shift_hsv(image, *shifts)
    for row, column in np.ndindex(12, 17):
        expected = reference.shift_hsv(tuple(image[row, column].tolist()), *shifts)
        # hue in 8 bits has steps of two degrees, and the saturation of dark colours is coarse
        np.testing.assert_allclose(changed[row, column], expected, atol=9)


def test_images_of_any_height_are_changed_whole() -> None:
    tall = image_u8(300, 5)
    parts = [_shift_hsv(tall[row : row + 1], 7, 20, -9) for row in range(300)]
    np.testing.assert_array_equal(_shift_hsv(tall, 7, 20, -9), np.concatenate(parts))


# ------------------------------------------------------------------------------------------------ colour matrix
def test_the_matrix_turns_hues_and_scales_the_rest() -> None:
    np.testing.assert_allclose(colour_matrix(0, 0, 0), np.eye(3), atol=1e-12)
    np.testing.assert_allclose(
        colour_matrix(60, 0, 0) @ (200, 10, 30), (30, 200, 10), atol=1e-9
    )  # a third of the circle
    np.testing.assert_allclose(colour_matrix(0, 0, 64) @ (10, 20, 30), (15, 30, 45), atol=1e-9)
    np.testing.assert_allclose(colour_matrix(33, 99, 0) @ (80, 80, 80), (80, 80, 80), atol=1e-9)
    np.testing.assert_allclose(colour_matrix(0, -128, 0) @ (10, 20, 60), (30, 30, 30), atol=1e-9)
    np.testing.assert_allclose(colour_matrix(5, 9, -128), np.zeros((3, 3)), atol=1e-12)


def test_the_matrix_is_near_the_exact_change_for_middling_colours() -> None:
    hsv = np.stack(np.meshgrid(np.arange(0, 180, 15), [110, 128, 146], [118, 128, 138]), axis=-1).reshape(1, -1, 3)
    image = cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB)
    for value in (20, -20):
        exact = _shift_hsv(image, 0, 0, value).astype(float)
        matrix = cv2.transform(image, colour_matrix(0, 0, value)).astype(float)
        assert np.abs(exact - matrix).max() < 5
    for hue in (8, -15):
        turned = cv2.cvtColor(cv2.transform(image, colour_matrix(hue, 0, 0)), cv2.COLOR_RGB2HSV)[..., 0].astype(int)
        away = (turned - (hsv[..., 0] + hue) + 90) % 180 - 90
        assert np.abs(away).max() <= 2
    for saturation in (20, -20):  # the matrix spreads colours about their mean, HSV below their largest
        exact = np.ptp(_shift_hsv(image, 0, saturation, 0).astype(float), axis=-1)
        matrix = np.ptp(cv2.transform(image, colour_matrix(0, saturation, 0)).astype(float), axis=-1)
        np.testing.assert_allclose(matrix, exact, atol=4)


def test_the_batch_transform_equals_the_matrix_mode() -> None:
    images = np.stack([image_u8(16, 24), image_u8(16, 24)[::-1], image_u8(16, 24)[:, ::-1]])
    batch = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    changed = BatchHSV(20, 40, 40, probability=0.6)(batch, [np.random.default_rng(seed) for seed in range(3)])
    assert changed.dtype == torch.uint8
    single = RandomHSV(20, 40, 40, probability=0.6, mode="matrix")
    expected = [single(image, np.random.default_rng(seed)) for seed, image in enumerate(images)]
    difference = changed.permute(0, 2, 3, 1).int() - torch.from_numpy(np.stack(expected)).int()
    assert int(difference.abs().max()) <= 1
    assert any(not np.array_equal(image, other) for image, other in zip(images, expected, strict=True))


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="mode='fast' is unknown: choose 'exact' or 'matrix'"):
        RandomHSV(mode="fast")  # type: ignore[arg-type]


def test_channels_are_swapped() -> None:
    image = image_u8(4, 6)
    np.testing.assert_array_equal(ChannelSwap(1.0)(image, np.random.default_rng(0)), image[..., ::-1])
    np.testing.assert_array_equal(ChannelSwap(0.0)(image, np.random.default_rng(0)), image)
