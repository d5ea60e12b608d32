"""Transforms of albumentations and torchvision: boxes follow, and nothing random repeats."""

from typing import Any

import albumentations
import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from torchvision.transforms import v2

from detlit.data import DetectionDataModule, DetectionDataset, GroundTruth
from detlit.data.transforms import Albumentations, Augment, SampleTransform, TorchVision, Transform
from detlit.errors import ConfigurationError
from detlit.spec import build, spec_of
from detlit.structures import Preprocessing
from tests.data.transforms.test_augment import sample_with_a_block
from tests.golden_recipe import image_u8

NOISE = {
    "albumentations": {"class_path": "albumentations.GaussNoise", "init_args": {"std_range": [0.3, 0.3], "p": 1.0}},
    "torchvision": {"class_path": "torchvision.transforms.v2.ColorJitter", "init_args": {"hue": 0.5, "contrast": 0.9}},
}


class Alike(DetectionDataset):
    """The same image six times."""

    class_names = ("block",)

    def __len__(self) -> int:
        return 6

    def load_image(self, index: int) -> np.ndarray:
        return image_u8(64, 64)

    def load_target(self, index: int) -> GroundTruth:
        return {"boxes": [[3, 4, 20, 30]], "labels": [0]}


def noise(kind: str) -> SampleTransform:
    return Albumentations([NOISE[kind]]) if kind == "albumentations" else TorchVision([NOISE[kind]])


def flips() -> list[Any]:
    return [
        Albumentations([albumentations.HorizontalFlip(p=1.0)]),
        Albumentations(albumentations.Compose([albumentations.HorizontalFlip(p=1.0)])),
        TorchVision([v2.RandomHorizontalFlip(1.0)]),
        TorchVision(v2.RandomHorizontalFlip(1.0)),
    ]


@pytest.mark.parametrize("transform", flips())
def test_boxes_follow_and_keep_their_labels(transform: SampleTransform) -> None:
    sample = sample_with_a_block()
    result = transform(sample, np.random.default_rng(0), 114)
    np.testing.assert_array_equal(result.image, sample.image[:, ::-1])
    np.testing.assert_allclose(result.boxes, [[30, 20, 70, 44]])
    assert (result.labels.tolist(), result.iscrowd.tolist()) == ([3], [False])
    assert result.image.dtype == np.uint8


@pytest.mark.parametrize("kind", NOISE)
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_no_two_slots_are_alike_and_runs_are(kind: str, workers: int) -> None:
    def drawn() -> list[bytes]:
        data = DetectionDataModule(
            Alike(), image_size=64, augmentations=[noise(kind)], batch_size=2, num_workers=workers
        )
        loader = data.train_dataloader()
        images = []
        for epoch in range(2):
            loader.sampler.set_epoch(epoch)
            images += [image.numpy().tobytes() for batch in loader for image in batch.images]
        return images

    first = drawn()
    assert len(set(first)) == len(first) == 12
    assert drawn() == first


@pytest.mark.parametrize("kind", NOISE)
def test_global_random_state_is_neither_read_nor_changed(kind: str) -> None:
    images = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        expected = torch.get_rng_state()
        np.random.seed(seed)  # noqa: NPY002
        images.append(noise(kind)(sample_with_a_block(), np.random.default_rng(5), 114).image)
        assert torch.equal(torch.get_rng_state(), expected)
    np.testing.assert_array_equal(*images)


@pytest.mark.parametrize(
    "crop",
    [Albumentations([albumentations.RandomCrop(40, 60, p=1.0)]), TorchVision([v2.RandomCrop((40, 60))])],
    ids=["albumentations", "torchvision"],
)
def test_another_size_is_letterboxed_again(crop: SampleTransform) -> None:
    for seed in range(10):
        result = Augment(Preprocessing((96, 160), pad_value=0), [crop])(
            sample_with_a_block(), np.random.default_rng(seed)
        )
        assert result.image.shape == (96, 160, 3)
        rows, columns = np.nonzero(result.image[..., 0] > 127)
        for box in result.boxes:
            seen = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            np.testing.assert_allclose(box, seen, atol=1.6)


def test_floats_come_back_as_bytes() -> None:
    sample = sample_with_a_block()
    result = TorchVision([v2.ToDtype(torch.float32, scale=True)])(sample, np.random.default_rng(0), 114)
    np.testing.assert_array_equal(result.image, sample.image)


def test_boxes_that_leave_the_image_are_left_out() -> None:
    crop = Albumentations([albumentations.Crop(0, 0, 20, 15, p=1.0)])
    result = crop(sample_with_a_block(), np.random.default_rng(0), 114)
    assert result.boxes.shape == (0, 4)
    assert len(result.labels) == len(result.iscrowd) == 0
    again = crop(result, np.random.default_rng(0), 114)  # an image without objects
    assert again.boxes.shape == (0, 4)


def test_thresholds_of_a_compose_are_kept() -> None:
    crop = [albumentations.Crop(0, 0, 40, 80, p=1.0)]  # shows a quarter of the block
    params = albumentations.BboxParams("coco", label_fields=["names"], min_visibility=0.5)
    strict = Albumentations(albumentations.Compose(crop, bbox_params=params))
    for transform, left in ((strict, 0), (Albumentations(crop), 1)):
        assert len(transform(sample_with_a_block(), np.random.default_rng(0), 114).boxes) == left


@pytest.mark.parametrize("kind", ["Albumentations", "TorchVision"])
def test_they_parse_from_yaml(kind: str) -> None:
    parser = ArgumentParser()
    parser.add_argument("--augmentations", type=list[Transform])
    spec = {"class_path": f"detlit.data.transforms.{kind}", "init_args": {"transforms": [NOISE[kind.lower()]]}}
    config = parser.parse_object({"augmentations": [spec]})
    (transform,) = parser.instantiate(config).augmentations
    sample = sample_with_a_block()
    sample.image[..., 1] = 90
    assert not np.array_equal(transform(sample, np.random.default_rng(0), 114).image, sample.image)
    assert parser.parse_string(parser.dump(config)).augmentations == config.augmentations
    again = build(spec_of(transform), allow_custom_code=True)
    results = [each(sample, np.random.default_rng(3), 114).image for each in (transform, again)]
    np.testing.assert_array_equal(*results)


def test_what_is_no_transform_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="int is no transform of albumentations"):
        Albumentations([3])
    with pytest.raises(ConfigurationError, match="3 is no transform of torchvision"):
        TorchVision([3])
    with pytest.raises(ConfigurationError, match=r"the augmentation albumentations\.Nothing cannot be made"):
        Albumentations([{"class_path": "albumentations.Nothing"}])
    with pytest.raises(ConfigurationError, match=r"albumentations\.Crop cannot be made"):
        Albumentations([{"class_path": "albumentations.Crop", "init_args": {"x_min": 9, "x_max": 3}}])
