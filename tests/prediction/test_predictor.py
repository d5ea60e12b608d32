"""What the predictor makes of sources, sizes, thresholds and tiles."""

import resource
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from detlit import Predictor, Tiles
from detlit.data.transforms.letterbox import letterbox
from detlit.errors import ConfigurationError, ImageReadError
from detlit.models import Detector
from detlit.ops.anchors import make_anchor_points
from detlit.prediction.canvases import network_input
from detlit.prediction.prefetch import read_ahead
from detlit.structures import Level, Preprocessing, RawPredictions
from tests.prediction.media import shapes_images, write_video
from tests.shapes_detector import CHECKPOINT


def predictor(**options: Any) -> Predictor:
    return Predictor(CHECKPOINT, device="cpu", **options)


class RedFinder(Detector):
    """A perfect detector of red rectangles: their position to a fraction of a pixel, from the sums of their colour."""

    reg_max = 80

    def __init__(self, preprocessing: Preprocessing) -> None:
        nn.Module.__init__(self)
        self.weight = nn.Parameter(torch.zeros(1))
        self.preprocessing = preprocessing
        self.seen: list[tuple[int, ...]] = []

    @property
    def num_classes(self) -> int:
        return 1

    def fuse(self, full: bool = False) -> "RedFinder":
        return self

    def forward(self, images: Tensor) -> RawPredictions:
        self.seen.append(tuple(images.shape))
        height, width = images.shape[2:]
        levels = (Level(height // 8, width // 8, 8),)
        points, strides = make_anchor_points(levels, images.device, torch.float32)
        cls_logits = torch.full((len(images), len(points), 1), -20.0)
        reg_logits = torch.full((len(images), len(points), 4, self.reg_max + 1), -40.0)
        for index, image in enumerate(images.double()):
            red = ((image[0] - image[1]) / 255).clamp(min=0)
            if red.max() < 0.5:
                continue
            x1, x2 = _extent(red.amax(0))
            y1, y2 = _extent(red.amax(1))
            centre = points.new_tensor([(x1 + x2) / 2, (y1 + y2) / 2])
            anchor = int((points - centre).abs().sum(dim=1).argmin())
            cls_logits[index, anchor] = 8.0
            x, y = points[anchor].tolist()
            for side, distance in enumerate((x - x1, y - y1, x2 - x, y2 - y)):
                lower = int(distance / 8)
                fraction = distance / 8 - lower
                reg_logits[index, anchor, side, lower] = np.log(max(1 - fraction, 1e-12))
                reg_logits[index, anchor, side, lower + 1] = np.log(max(fraction, 1e-12))
        return RawPredictions(cls_logits, reg_logits.flatten(2), points, strides, levels)


def _extent(profile: Tensor) -> tuple[float, float]:
    """Return where a blurred step begins and ends: its mass is its length, its centroid its middle."""
    length = float(profile.sum())
    middle = float((profile * (torch.arange(len(profile)) + 0.5)).sum()) / length
    return middle - length / 2, middle + length / 2


def red_image(height: int, width: int, box: tuple[int, int, int, int]) -> np.ndarray:
    image = np.full((height, width, 3), 90, dtype=np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = (255, 0, 0)
    return image


@pytest.mark.parametrize("rectangular", [False, True])
def test_a_letterboxed_copy_gives_the_same_boxes_at_200_aspect_ratios(rectangular: bool) -> None:
    """Within a pixel of the copy, whatever the image's shape; and they are the true ones."""
    rng = np.random.default_rng(0)
    preprocessing = Preprocessing(size=(192, 256))
    predict = Predictor(RedFinder(preprocessing), device="cpu", rectangular=rectangular)
    images, copies, truths, geometries = [], [], [], []
    for _ in range(200):
        ratio, area = 4 ** rng.uniform(-1, 1), rng.uniform(100, 400) ** 2
        height, width = round((area / ratio) ** 0.5), round((area * ratio) ** 0.5)
        left, top = int(rng.integers(0, width // 2)), int(rng.integers(0, height // 2))
        box = (left, top, int(rng.integers(left + width // 4, width)), int(rng.integers(top + height // 4, height)))
        images.append(red_image(height, width, box))
        copies.append(letterbox(images[-1], preprocessing))
        geometries.append(preprocessing.geometry(height, width))
        truths.append(box)
    originals = list(predict(images, batch_size=16))
    for original, copy, truth, (scale_x, scale_y, x, y) in zip(
        originals, predict(copies, batch_size=16), truths, geometries, strict=True
    ):
        (box,), (copied,) = original.boxes.astype(float), copy.boxes
        scale, offset = np.array([scale_x, scale_y] * 2), np.array([x, y] * 2)
        np.testing.assert_allclose(box * scale + offset, copied, atol=1.0)
        np.testing.assert_allclose(box * scale, np.array(truth) * scale, atol=1.0)


def test_rectangular_input_is_smaller_and_scales_the_same() -> None:
    preprocessing = Preprocessing(size=(128, 128))
    images = [np.full((60, 240, 3), 7, np.uint8), np.full((50, 100, 3), 7, np.uint8)]
    alone, _ = network_input(images[:1], preprocessing, rectangular=True)
    both, geometry = network_input(images, preprocessing, rectangular=True)
    whole, full_geometry = network_input(images, preprocessing)
    assert [tuple(x.shape) for x in (alone, both, whole)] == [(1, 3, 32, 128), (2, 3, 64, 128), (2, 3, 128, 128)]
    assert torch.equal(geometry[:, :2], full_geometry[:, :2])
    for canvas, own, full, own_full in zip(both, geometry, whole, full_geometry, strict=True):
        top, top_full = int(own[3]), int(own_full[3])
        assert torch.equal(canvas[:, top : top + 32], full[:, top_full : top_full + 32])


def test_rectangular_input_finds_the_same_objects() -> None:
    images = [image[:80] for image in shapes_images(6)]
    square, rectangle = (list(predictor(rectangular=each)(images)) for each in (False, True))
    assert sum(map(len, square)) > 5
    same = sum(str(a) == str(b) for a, b in zip(square, rectangle, strict=True))
    assert same >= 4  # padding reaches into the receptive fields


@pytest.mark.parametrize("model", [None, (96, 160)])
def test_the_image_size_is_a_choice(model: tuple[int, int] | None) -> None:
    finder = RedFinder(Preprocessing(size=(64, 64)))
    predict = Predictor(finder, device="cpu", image_size=model)
    assert len(next(predict(red_image(50, 50, (10, 10, 40, 30))))) == 1
    assert predict.engine.detector.seen == [(1, 3, *(model or (64, 64)))]  # type: ignore[attr-defined]
    assert finder.seen == []  # a copy ran


def test_warming_up_runs_the_detector() -> None:
    predict = Predictor(RedFinder(Preprocessing(size=(64, 64))), device="cpu")
    assert predict.warm_up(3) is predict
    assert predict.engine.detector.seen == [(3, 3, 64, 64)]  # type: ignore[attr-defined]


def test_classes_and_thresholds_by_class() -> None:
    images = shapes_images(20)
    every = list(predictor(score_threshold=0.3)(images))
    names = {name for result in every for name in result.names}
    assert len(names) > 3
    wanted, other = sorted(names)[:2]
    only = list(predictor(score_threshold=0.3, classes=[wanted])(images))
    assert {name for result in only for name in result.names} == {wanted}
    assert sum(map(len, only)) == sum(result.names.count(wanted) for result in every)
    mixed = list(predictor(score_threshold={wanted: 0.9, other: 0.05})(images))
    for result in mixed:
        for name, score in zip(result.names, result.scores, strict=True):
            assert score > {wanted: 0.9, other: 0.05}.get(name, 0.25)
    assert any(name == other and score < 0.25 for r in mixed for name, score in zip(r.names, r.scores, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ["unicorn"]}, "class unicorn is unknown: choose among"),
        ({"score_threshold": {"unicorn": 0.5}}, "class unicorn is unknown"),
        ({"score_threshold": 25.0}, r"score_threshold=25.0 is no threshold"),
        ({"precision": "float16"}, "precision 'float16' cannot be used on cpu"),
        ({"tiles": 8}, "tiles of 8 pixels"),
        ({"image_size": (100, 100)}, "100x100 does not fit"),
    ],
)
def test_wrong_options_are_one_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        predictor(**options)


def test_the_nms_threshold_is_a_choice() -> None:
    images = shapes_images(10)
    loose, strict = (sum(map(len, predictor(score_threshold=0.05, nms_threshold=each)(images))) for each in (0.95, 0.2))
    assert loose > strict


def test_bfloat16_finds_the_same_objects() -> None:
    images = shapes_images(12)
    full, half = (list(predictor(score_threshold=0.5, precision=each)(images)) for each in ("float32", "bfloat16"))
    boxes = [len(result) for result in full]
    assert sum(abs(a - len(b)) for a, b in zip(boxes, half, strict=True)) <= 1
    changed = [a.boxes - b.boxes for a, b in zip(full, half, strict=True) if a.names == b.names]
    assert 0 < np.abs(np.concatenate(changed)).max() < 3


def test_a_given_detector_needs_names_for_its_classes() -> None:
    finder = RedFinder(Preprocessing(size=(64, 64)))
    assert Predictor(finder, device="cpu").class_names == ("class_0",)
    assert Predictor(finder, device="cpu", class_names=["red"]).class_names == ("red",)
    with pytest.raises(ConfigurationError, match="2 names for a detector of 1 classes"):
        Predictor(finder, class_names=["a", "b"])


def test_tiles_find_what_is_too_small_in_the_whole() -> None:
    """Twelve small scenes on one large image: each is one tile, and one of many objects in the whole."""
    scenes = shapes_images(12)
    image = np.vstack([np.hstack(scenes[row : row + 4]) for row in (0, 4, 8)])
    alone = list(predictor(score_threshold=0.5)(scenes))
    (whole,) = predictor(score_threshold=0.5)(image)
    (tiled,) = predictor(score_threshold=0.5, tiles=Tiles(size=128, overlap=0.0, whole=False))(image, batch_size=5)
    expected = {
        (name, *np.round(box + 128 * np.array([i % 4, i // 4] * 2)).astype(int).tolist())
        for i, result in enumerate(alone)
        for name, box in zip(result.names, result.boxes, strict=True)
    }
    found = {(n, *np.round(b).astype(int).tolist()) for n, b in zip(tiled.names, tiled.boxes, strict=True)}
    assert len(found & expected) >= 0.9 * len(expected) > len(whole)
    assert (np.diff(tiled.scores) <= 0).all()


def test_an_object_on_the_seams_of_tiles_is_found_once() -> None:
    finder = RedFinder(Preprocessing(size=(64, 64)))
    for box in ((55, 50, 70, 66), (10, 10, 30, 25), (90, 5, 110, 120)):
        image = red_image(128, 128, box)
        (result,) = Predictor(finder, device="cpu", tiles=Tiles(size=64, overlap=0.4))(image)
        assert len(result) == 1 or box[3] - box[1] > 64
        best = np.abs(result.boxes - np.array(box)).max(axis=1).min()
        assert best < 2.5
    assert len(Tiles(size=64).windows(64, 64)) == 1
    assert Tiles(size=64, overlap=0.5, whole=False).windows(64, 100) == [
        (0, 0, 64, 64),
        (32, 0, 96, 64),
        (36, 0, 100, 64),
    ]
    assert Tiles(size=64, overlap=0.5).windows(64, 100)[-1] == (0, 0, 100, 64)


def test_tiles_merge_by_their_threshold() -> None:
    image = np.vstack([np.hstack(shapes_images(4)[:2]), np.hstack(shapes_images(4)[2:])])
    counts = [len(next(predictor(tiles=Tiles(128, 0.5, nms_threshold=threshold))(image))) for threshold in (1.0, 0.3)]
    assert counts[0] > counts[1]


def test_results_of_videos_know_their_place(tmp_path: Path) -> None:
    path = write_video(tmp_path / "film.avi", 7, fps=12.5)
    results = list(predictor()(path, batch_size=3))
    assert [(result.path, result.frame, result.fps) for result in results] == [(path, i, 12.5) for i in range(7)]


def test_broken_images_are_skipped_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(b"broken")
    image = shapes_images(1)[0]
    broken: list[ImageReadError] = []
    results = list(predictor()([image, tmp_path / "b.png", image], on_broken=broken.append))
    assert (len(results), len(broken)) == (2, 1)


def test_reading_ahead_is_in_order_bounded_and_ends() -> None:
    taken: list[int] = []
    closed = threading.Event()

    def numbers() -> Iterator[int]:
        try:
            for number in range(1000):
                taken.append(number)
                yield number
        finally:
            closed.set()

    ahead = read_ahead(numbers(), depth=2)
    assert [next(ahead) for _ in range(3)] == [0, 1, 2]
    time.sleep(0.2)
    assert len(taken) <= 6
    ahead.close()  # type: ignore[attr-defined]
    assert closed.wait(5)
    assert list(read_ahead(iter(range(50)))) == list(range(50))


def test_reading_ahead_passes_errors_on_after_what_came_before() -> None:
    def numbers() -> Iterator[int]:
        yield 1
        raise KeyError("late")

    ahead = read_ahead(numbers())
    assert next(ahead) == 1
    with pytest.raises(KeyError, match="late"):
        next(ahead)


@pytest.mark.slow
def test_ten_thousand_frames_take_no_more_memory_than_a_thousand(tmp_path: Path) -> None:
    path = write_video(tmp_path / "film.mp4", 10_000, size=(240, 320))
    predict = Predictor(RedFinder(Preprocessing(size=(64, 64))), device="cpu")
    count, early = 0, 0
    for count, _ in enumerate(predict(path, batch_size=16), start=1):
        if count == 1000:
            early = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert count == 10_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - early < 50_000  # kB; the frames are 2,000,000


def test_annotated_frames_differ_from_the_source(tmp_path: Path) -> None:
    result = next(predictor(score_threshold=0.3)(shapes_images(3)))
    assert (result.draw() != result.image).any()
    assert cv2.imread(str(result.save(tmp_path))).shape == (128, 128, 3)
