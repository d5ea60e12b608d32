"""Generated scenes."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from detlit.data import DetectionDataModule, ShapesDataset
from detlit.data.datasets import shapes
from detlit.data.datasets.shapes import _unit_outlines
from detlit.errors import ConfigurationError
from detlit.spec import build, spec_of


def test_a_scene_depends_on_seed_and_index_alone() -> None:
    first, again = ShapesDataset(10, seed=3), ShapesDataset(20, seed=3)
    again.load_image(7)
    np.testing.assert_array_equal(first.load_image(4), again.load_image(4))
    np.testing.assert_array_equal(first.load_target(4)["boxes"], again.load_target(4)["boxes"])
    assert not np.array_equal(first.load_image(4), first.load_image(5))
    assert not np.array_equal(first.load_image(4), ShapesDataset(10, seed=4).load_image(4))


def test_scenes_can_be_cached_on_disk(tmp_path: Path) -> None:
    images = {}
    for side, seed in ((64, 0), (64, 1), (96, 0), (64, 0)):
        data = DetectionDataModule(
            train=ShapesDataset(2, side, seed), image_size=64, batch_size=1, cache="disk", cache_dir=str(tmp_path)
        )
        prepared = data.dataset("train")
        assert prepared is not None
        images[side, seed] = prepared.load_sample(1).image
        np.testing.assert_array_equal(images[side, seed], ShapesDataset(2, side, seed).load_image(1))
    assert len(list(tmp_path.iterdir())) == len({ShapesDataset(2, *key).fingerprint() for key in images}) == 3


def test_objects_are_as_promised() -> None:
    data = ShapesDataset(300)
    samples = [data.load_sample(index) for index in range(300)]
    counts = np.array([len(sample.boxes) for sample in samples])
    labels = np.concatenate([sample.labels for sample in samples])
    sides = np.concatenate([sample.boxes[:, 2:] - sample.boxes[:, :2] for sample in samples])
    assert (counts.min(), counts.max()) == (0, 8)
    assert 5 < (counts == 0).sum() < 40
    assert np.bincount(labels, minlength=6).min() > 150
    assert sides.min() >= 10
    assert sides.max() > 60
    assert all(len(sample.originals.boxes) == len(sample.boxes) for sample in samples if sample.originals)


def test_boxes_hug_what_the_shape_changes_in_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "add_grain", lambda image, generator: None)
    with_shapes = [ShapesDataset(60).load_sample(index) for index in range(60)]
    monkeypatch.setattr(shapes, "_draw_shape", lambda image, shape, generator: None)
    singles = [sample for sample in with_shapes if len(sample.boxes) == 1]
    assert len(singles) > 3
    for sample in singles:
        changed = np.abs(sample.image.astype(int) - ShapesDataset(60).load_image(sample.dataset_index)).max(axis=2) > 24
        x, y, width, height = cv2.boundingRect(changed.astype(np.uint8))
        np.testing.assert_allclose(sample.boxes[0], [x, y, x + width, y + height], atol=1)


@pytest.mark.parametrize("name", ShapesDataset.class_names)
def test_outlines_fit_into_the_unit_circle(name: str) -> None:
    outlines = _unit_outlines(name)
    radii = np.linalg.norm(np.concatenate(outlines), axis=1)
    assert 0.95 < radii.max() < 1.01
    assert len(outlines) == (2 if name == "ring" else 1)


def test_the_size_can_be_chosen() -> None:
    assert ShapesDataset(2, image_size=(64, 128))[1][0].shape == (3, 64, 128)
    assert ShapesDataset(2, image_size=320)[1][0].shape == (3, 320, 320)


def test_it_ends() -> None:
    with pytest.raises(IndexError, match="index 5 is outside a data set of 5 images"):
        ShapesDataset(5)[5]


@pytest.mark.parametrize("arguments", [{"num_images": 0}, {"image_size": 32}, {"seed": -1}])
def test_arguments_that_give_nothing_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match="gives no shapes"):
        ShapesDataset(**arguments)


def test_it_round_trips_through_plain_data() -> None:
    data = build(spec_of(ShapesDataset(7, image_size=(64, 96), seed=2)))
    np.testing.assert_array_equal(data.load_image(3), ShapesDataset(7, image_size=(64, 96), seed=2).load_image(3))
