"""Mosaic, mixup and cut-outs: boxes follow objects."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from detlit.data.sample import Sample
from detlit.data.sampler import SampleIndex
from detlit.data.transforms import Augment, CutOut, HorizontalFlip, Mixup, Mosaic, RandomAffine, Transform
from detlit.data.transforms.canvas import draw_samples
from detlit.errors import ConfigurationError
from detlit.spec import build, spec_of
from detlit.structures import Preprocessing
from tests.data.transforms.test_augment import sample_with_a_block
from tests.golden_recipe import image_u8
from tests.reference import transforms as reference

PREPROCESSING = Preprocessing(size=(96, 160), pad_value=0)


class Blocks:
    """Images of different sizes with one bright block each, on black; every fourth is empty."""

    def __init__(self, empty: int = 4) -> None:
        self.empty, self.asked = empty, []  # type: ignore[var-annotated]

    def __len__(self) -> int:
        return 8

    def load_sample(self, index: int) -> Sample:
        self.asked.append(index)
        sample = sample_with_a_block(20 + 2 * index, 15, 60 + 2 * index, 39)
        sample.image = sample.image[: 60 + 2 * index].copy()
        sample = replace(sample, labels=np.array([index]), dataset_index=index, orig_size=sample.image.shape[:2])
        if index % self.empty == 3:
            sample.image[:] = 0
            sample = replace(sample, boxes=np.zeros((0, 4)), labels=np.zeros(0, int), iscrowd=np.zeros(0, bool))
        return sample


def blobs(image: np.ndarray, level: int) -> list[list[int]]:
    """Return xyxy around each connected bright area, ascending."""
    found = cv2.connectedComponentsWithStats((image[..., 0] > level).astype(np.uint8))[2][1:]
    return sorted([x, y, x + width, y + height] for x, y, width, height, area in found.tolist() if area > 20)


@pytest.mark.parametrize(
    "others",
    [[], [RandomAffine(scale=(0.6, 0.9), translate=0.1)], [HorizontalFlip(1.0)], [RandomAffine(degrees=90)]],
    ids=["alone", "scaled", "mirrored", "turned"],
)
@pytest.mark.parametrize("preprocessing", [PREPROCESSING, Preprocessing((160, 96), keep_ratio=False, pad_value=0)])
def test_boxes_of_a_mosaic_fit_its_objects(others: list[Transform], preprocessing: Preprocessing) -> None:
    source = Blocks()
    augment = Augment(preprocessing, [*others, Mosaic()], source)
    height, width = preprocessing.size
    checked = 0
    for seed in range(60):
        result = augment(source.load_sample(seed % 3), np.random.default_rng(seed))
        assert result.image.shape == (height, width, 3)
        inside = [
            box
            for box in result.boxes.tolist()
            if box[0] > 2 and box[1] > 2 and box[2] < width - 2 and box[3] < height - 2
        ]
        objects = blobs(result.image, 127)
        for box in inside:
            nearest = min(np.abs(np.subtract(box, other)).max() for other in objects)
            turned = any(isinstance(other, RandomAffine) and other.degrees for other in others)
            assert turned or nearest <= 1.5, (seed, box, objects)
            checked += 1
    assert checked > 8


def test_a_mosaic_equals_its_slow_twin() -> None:
    sizes, preprocessing = [(20, 30), (24, 24), (30, 20), (16, 32)], Preprocessing(size=(64, 64))
    images = [image_u8(height, width) for height, width in sizes]
    samples = [replace(sample_with_a_block(), image=image, orig_size=image.shape[:2]) for image in images]

    class Listed:
        def __len__(self) -> int:
            return 3

        def load_sample(self, index: int) -> Sample:
            return samples[1 + index]

    for seed in range(6):
        tiles = Mosaic().tiles(samples[0], Listed(), preprocessing, np.random.default_rng(seed))
        assert tiles is not None
        left, top = tiles[3][1][:2, 2]
        assert 0 <= left <= 64
        assert 0 <= top <= 64
        canvas = np.full((64, 64, 3), 114, dtype=np.uint8)
        scaled = []
        snapped = []  # what is drawn is rounded to whole pixels; the twin gets the same sizes at the rounded place
        for tile, matrix in tiles:
            scaled.append((tile.image.shape[1] * matrix[0, 0], tile.image.shape[0] * matrix[1, 1]))
            snapped.append(tile.image)
        expected = reference.mosaic(snapped, scaled, (left, top), canvas)
        drawn = draw_samples(tiles, preprocessing).image
        # by less than a pixel the drawing is elsewhere: blurred, the two agree
        difference = cv2.blur(drawn.astype(np.float32) - expected.astype(np.float32), (9, 9))
        assert np.abs(difference[8:-8, 8:-8]).mean() < 4


def test_a_mosaic_keeps_crowds_and_labels_and_is_an_image_of_its_own() -> None:
    source = Blocks()
    crowd = replace(source.load_sample(0), iscrowd=np.array([True]))
    for seed in range(10):
        result = Augment(PREPROCESSING, [Mosaic()], source)(crowd, np.random.default_rng(seed))
        assert len(result.boxes) == len(result.labels) == len(result.iscrowd)
        assert set(result.labels[result.iscrowd]) <= {0}
        assert (result.geometry, result.orig_size, result.originals) == ((1.0, 1.0, 0.0, 0.0), (96, 160), None)
        assert result.dataset_index == 0


@pytest.mark.parametrize("combine", [Mosaic(1.0), Mixup(1.0)])
def test_an_index_may_ask_for_an_image_alone(combine: Transform) -> None:
    source = Blocks()
    augment = Augment(PREPROCESSING, [combine], source)
    sample = replace(source.load_sample(1), request=SampleIndex(1, 0, mosaic=False))
    alone = Augment(PREPROCESSING, [])(sample, np.random.default_rng(0))
    source.asked.clear()
    np.testing.assert_array_equal(augment(sample, np.random.default_rng(0)).image, alone.image)
    assert source.asked == []
    sample = replace(sample, request=SampleIndex(1, 0))
    assert not np.array_equal(augment(sample, np.random.default_rng(0)).image, alone.image)


@pytest.mark.parametrize("kind", [Mosaic, Mixup, CutOut])
def test_probability_is_that_of_a_change(kind: type) -> None:
    source, changed = Blocks(), 0
    augment = Augment(Preprocessing((96, 160)), [kind(probability=0.25)], source)
    plain = Augment(Preprocessing((96, 160)), [])(source.load_sample(0), np.random.default_rng(0)).image
    for seed in range(200):
        changed += not np.array_equal(augment(source.load_sample(0), np.random.default_rng(seed)).image, plain)
    assert 30 < changed < 70


def test_partners_come_from_the_batch_if_asked() -> None:
    source = Blocks()
    sample = replace(source.load_sample(1), request=SampleIndex(1, 0, batch=(1, 5, 6)))
    for partners, possible in (("batch", {1, 5, 6}), ("dataset", set(range(8)))):
        source.asked.clear()
        for seed in range(20):
            Mosaic(partners=partners).tiles(sample, source, PREPROCESSING, np.random.default_rng(seed))  # type: ignore[arg-type]
        assert set(source.asked) == possible
        assert len(source.asked) == 60
    source.asked.clear()
    Mosaic(partners="batch").tiles(source.load_sample(0), source, PREPROCESSING, np.random.default_rng(0))
    assert len(source.asked) == 4  # without a batch, from the data set


# ----------------------------------------------------------------------------------------------------- mixup
def test_mixup_is_the_mean_of_both_with_the_boxes_of_both() -> None:
    source = Blocks()
    first = source.load_sample(0)
    alone = Augment(PREPROCESSING, [])(first, np.random.default_rng(0))
    for seed in range(20):
        mixed = Augment(PREPROCESSING, [Mixup(1.0, scale=(0.5, 0.9))], source)(first, np.random.default_rng(seed))
        assert len(mixed.boxes) == 2  # the partner is never an empty one
        np.testing.assert_array_equal(mixed.boxes[0], alone.boxes[0])
        other = np.abs(2 * mixed.image.astype(int) - alone.image)
        (blob,) = blobs(other.clip(0, 255).astype(np.uint8), 127)
        np.testing.assert_allclose(mixed.boxes[1], blob, atol=1.5)


def test_mixup_takes_an_empty_partner_only_if_it_finds_no_other() -> None:
    class Empty(Blocks):
        def load_sample(self, index: int) -> Sample:
            return super().load_sample(3)

    mixed = Augment(PREPROCESSING, [Mixup(1.0)], Empty())(Blocks().load_sample(0), np.random.default_rng(0))
    assert len(mixed.boxes) == 1


@pytest.mark.parametrize(
    ("changed", "default"), [(Mixup(1.0, scale=(0.2, 0.3)), Mixup(1.0)), (Mixup(1.0, flip_probability=1.0), Mixup(1.0))]
)
def test_options_of_mixup_change_something(changed: Mixup, default: Mixup) -> None:
    source = Blocks()
    results = [
        [
            Augment(PREPROCESSING, [mixup], source)(source.load_sample(0), np.random.default_rng(s)).image
            for s in range(8)
        ]
        for mixup in (changed, default)
    ]
    assert not np.array_equal(*results)


# --------------------------------------------------------------------------------------------------- cut-outs
def test_hidden_objects_are_left_out_and_others_stay_whole() -> None:
    sample = Augment(Preprocessing((96, 160)), [])(Blocks().load_sample(0), np.random.default_rng(0))
    sample = replace(sample, image=np.full_like(sample.image, 200))
    gone = 0
    for seed in range(100):
        result = CutOut(size=(0.2, 0.6), max_hidden=0.5, probability=1.0)(sample, np.random.default_rng(seed), 114)
        assert (sample.image == 200).all()
        left, top, right, bottom = sample.boxes[0].round().astype(int)
        hidden = (result.image[top:bottom, left:right, 0] == 114).mean()
        if abs(hidden - 0.5) > 0.05:
            assert len(result.boxes) == len(result.labels) == len(result.iscrowd) == int(hidden < 0.5)
        gone += not len(result.boxes)
        if len(result.boxes):
            np.testing.assert_array_equal(result.boxes, sample.boxes)
    assert 5 < gone < 95


def test_number_and_size_of_holes_by_hand() -> None:
    sample = replace(sample_with_a_block(), image=np.full((100, 200, 3), 7, dtype=np.uint8))
    result = CutOut(holes=(1, 1), size=(0.1, 0.1), probability=1.0)(sample, np.random.default_rng(0), 0)
    assert int((result.image[..., 0] == 0).sum()) == 10 * 20
    many = CutOut(holes=(30, 30), size=(0.1, 0.1), probability=1.0)(sample, np.random.default_rng(0), 0)
    assert (many.image[..., 0] == 0).sum() > 10 * 200


# ----------------------------------------------------------------------------------------------------- errors
def test_errors_say_what_to_change() -> None:
    for make, message in (
        (lambda: Mosaic(2.0), "probability=2.0 is none"),
        (lambda: Mosaic(partners="all"), "partners='all' is unknown: choose 'dataset' or 'batch'"),  # type: ignore[arg-type]
        (lambda: Mixup(scale=(2, 1)), r"scale=\(2, 1\) is no range of factors"),
        (lambda: CutOut(holes=(0, 1)), r"holes=\(0, 1\) is no range of numbers"),
        (lambda: CutOut(size=(0.1, 1.1)), r"size=\(0.1, 1.1\) is no range of parts"),
        (lambda: CutOut(max_hidden=-1), "max_hidden=-1 is no part of a box"),
        (lambda: Augment(PREPROCESSING, [Mosaic()]), "use DetectionDataModule, or give Augment a source"),
        (lambda: Augment(PREPROCESSING, [Mosaic(), Mosaic()], Blocks()), "list Mosaic 2 times: keep one"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            make()  # type: ignore[no-untyped-call]


def test_they_round_trip_through_plain_data() -> None:
    for transform in (Mosaic(0.3, partners="batch"), Mixup(scale=(0.2, 0.9)), CutOut(holes=(2, 3))):
        assert spec_of(build(spec_of(transform))) == spec_of(transform)
