"""The training pipeline: boxes follow objects, one interpolation, everything from one generator."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from detlit.data.sample import Sample
from detlit.data.sampler import SampleIndex
from detlit.data.transforms import (
    Augment,
    GeometricTransform,
    HorizontalFlip,
    Letterbox,
    RandomAffine,
    RandomHSV,
    RandomRotate90,
    Transform,
    VerticalFlip,
    default_augmentations,
)
from detlit.errors import ConfigurationError
from detlit.spec import build, spec_of
from detlit.structures import Preprocessing

PREPROCESSING = Preprocessing(size=(96, 160))


def sample_with_a_block(x1: int = 30, y1: int = 20, x2: int = 70, y2: int = 44) -> Sample:
    image = np.zeros((80, 100, 3), dtype=np.uint8)
    image[y1:y2, x1:x2] = 255
    return Sample(
        image=image,
        boxes=np.array([[x1, y1, x2, y2]], dtype=np.float64),
        labels=np.array([3]),
        iscrowd=np.array([False]),
        image_id=7,
        dataset_index=2,
        path="block.png",
        orig_size=(80, 100),
    )


@pytest.mark.parametrize(
    "transforms",
    [
        [RandomAffine(degrees=0, translate=0.2, scale=(0.5, 1.5))],
        [RandomAffine(degrees=90, translate=0.1, scale=(0.7, 1.2), shear=10)],
        [VerticalFlip(1.0), HorizontalFlip(1.0)],
        [HorizontalFlip(0.5), RandomAffine(shear=20), VerticalFlip(0.5)],
    ],
    ids=["scale", "turn", "flip", "mixed"],
)
def test_boxes_follow_the_object(transforms: list[Transform]) -> None:
    augment = Augment(replace(PREPROCESSING, pad_value=0), transforms)
    visible = 0
    for seed in range(20):
        result = augment(sample_with_a_block(), np.random.default_rng(seed))
        assert result.image.shape == (96, 160, 3)
        x, y, width, height = cv2.boundingRect((result.image[..., 0] > 127).astype(np.uint8))
        for box in result.boxes:
            visible += 1
            whole = (box[0] > 0) and (box[1] > 0) and (box[2] < 160) and (box[3] < 96)
            if whole:  # the block cut off at an edge, and then turned, fills less than the box of its corners
                np.testing.assert_allclose(box, [x, y, x + width, y + height], atol=1.5)
    assert visible > 10


def test_flips_are_exact() -> None:
    sample = sample_with_a_block()
    plain = Letterbox(PREPROCESSING)(sample)
    flipped = Augment(PREPROCESSING, [HorizontalFlip(1.0), VerticalFlip(1.0)])(sample, np.random.default_rng(0))
    np.testing.assert_allclose(flipped.boxes[:, [2, 3, 0, 1]], [160, 96, 160, 96] - plain.boxes)


def test_the_same_generator_gives_the_same_sample_and_another_gives_another() -> None:
    augment = Augment(PREPROCESSING, default_augmentations())
    first, again, other = (
        augment(sample_with_a_block(), np.random.default_rng(seed)) for seed in ((0, 1, 2), (0, 1, 2), (0, 2, 2))
    )
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.boxes, again.boxes)
    assert not np.array_equal(first.image, other.image)


def test_without_transforms_it_is_the_letterbox() -> None:
    sample = sample_with_a_block()
    augmented = Augment(PREPROCESSING, [])(sample, np.random.default_rng(0))
    boxed = Letterbox(PREPROCESSING)(sample)
    np.testing.assert_array_equal(augmented.image, boxed.image)
    np.testing.assert_array_equal(augmented.boxes, boxed.boxes)
    assert augmented.geometry == boxed.geometry


def test_the_transforms_leave_the_sample_alone() -> None:
    sample = sample_with_a_block()
    image, boxes = sample.image.copy(), sample.boxes.copy()
    Augment(PREPROCESSING, [*default_augmentations(), VerticalFlip()])(sample, np.random.default_rng(0))
    np.testing.assert_array_equal(sample.image, image)
    np.testing.assert_array_equal(sample.boxes, boxes)


def test_an_augmented_image_is_an_image_of_its_own() -> None:
    result = Augment(PREPROCESSING, [HorizontalFlip(1.0)])(sample_with_a_block(), np.random.default_rng(0))
    assert (result.geometry, result.orig_size, result.originals) == ((1.0, 1.0, 0.0, 0.0), (96, 160), None)


@pytest.mark.parametrize(
    ("changed", "default"),
    [
        (RandomAffine(degrees=30), RandomAffine()),
        (RandomAffine(translate=0.4), RandomAffine()),
        (RandomAffine(scale=(0.2, 0.3)), RandomAffine()),
        (RandomAffine(shear=20), RandomAffine()),
        (HorizontalFlip(1.0), HorizontalFlip(0.0)),
        (VerticalFlip(1.0), VerticalFlip(0.0)),
        (RandomRotate90(1.0), RandomRotate90(0.0)),
    ],
)
def test_each_option_changes_something(changed: GeometricTransform, default: GeometricTransform) -> None:
    matrices = [transform.matrix(96, 160, np.random.default_rng(0)) for transform in (changed, default)]
    assert not np.allclose(*matrices)


def test_an_affine_with_nothing_to_draw_is_the_identity() -> None:
    matrix = RandomAffine(translate=0.0, scale=(1.0, 1.0)).matrix(96, 160, np.random.default_rng(0))
    np.testing.assert_allclose(matrix, np.eye(3), atol=1e-12)


def test_a_rotation_keeps_the_centre_and_lengths() -> None:
    matrix = RandomAffine(degrees=180, translate=0.0, scale=(1.0, 1.0)).matrix(96, 160, np.random.default_rng(3))
    np.testing.assert_allclose(matrix @ (80, 48, 1), (80, 48, 1))
    np.testing.assert_allclose(matrix[:2, :2] @ matrix[:2, :2].T, np.eye(2), atol=1e-12)


def test_transforms_round_trip_through_plain_data() -> None:
    for transform in (RandomAffine(scale=(0.1, 2.0)), VerticalFlip(0.3), RandomHSV(hgain=5)):
        again = build(spec_of(transform))
        assert spec_of(again) == spec_of(transform)
    build(spec_of(RandomAffine(scale=(0.1, 2.0)))).matrix(32, 32, np.random.default_rng(0))


def test_errors_say_what_to_change() -> None:
    with pytest.raises(ConfigurationError, match=r"scale=\(2, 1\) is no range"):
        RandomAffine(scale=(2, 1))
    with pytest.raises(ConfigurationError, match=r"degrees=-5 is negative"):
        RandomAffine(degrees=-5)
    with pytest.raises(ConfigurationError, match=r"probability=1.5"):
        HorizontalFlip(1.5)

    class Nothing(Transform):
        pass

    with pytest.raises(ConfigurationError, match="Nothing says neither"):
        Augment(PREPROCESSING, [Nothing()])


@pytest.mark.parametrize("size", [(96, 160), (128, 128)])
def test_quarter_turns_keep_everything_in_sight(size: tuple[int, int]) -> None:
    corners = np.array([[0, 0, 1], [size[1], 0, 1], [0, size[0], 1], [size[1], size[0], 1]]).T
    turns = set()
    for seed in range(30):
        matrix = RandomRotate90(1.0).matrix(*size, np.random.default_rng(seed))
        points = matrix @ corners
        assert points.min() >= -1e-9
        assert (points[0].max() <= size[1] + 1e-9) and (points[1].max() <= size[0] + 1e-9)  # noqa: PT018
        assert not np.allclose(matrix, np.eye(3))
        turns.add(tuple(np.sign(matrix[:2, :2].round(6)).ravel().astype(int).tolist()))
    assert turns == {(0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)}
    np.testing.assert_array_equal(RandomRotate90(0.0).matrix(*size, np.random.default_rng(0)), np.eye(3))


def test_padding_keeps_its_grey() -> None:
    for others in ([RandomAffine(scale=(0.3, 0.5))], []):
        augment = Augment(PREPROCESSING, [RandomHSV(0, 0, 200), *others])
        result = augment(sample_with_a_block(), np.random.default_rng(0))
        assert (result.image == 114).all(axis=2).sum() > 1000
        beyond = Augment(PREPROCESSING, [RandomAffine(translate=0.0), Shift(400.0), RandomHSV()])
        assert (beyond(sample_with_a_block(), np.random.default_rng(0)).image == 114).all()


class Shift(GeometricTransform):
    """Moves everything to the right."""

    def __init__(self, pixels: float) -> None:
        self.pixels = pixels

    def matrix(self, height: int, width: int, generator: np.random.Generator) -> np.ndarray:
        return np.array([[1.0, 0, self.pixels], [0, 1, 0], [0, 0, 1]])


def test_the_sampler_decides_on_the_size() -> None:
    sample = replace(sample_with_a_block(), request=SampleIndex(2, 0, size=(64, 128)))
    for transforms in ([], default_augmentations()):
        result = Augment(PREPROCESSING, transforms)(sample, np.random.default_rng(0))
        assert result.image.shape == (64, 128, 3)
        assert result.boxes[:, 2].max() <= 128
