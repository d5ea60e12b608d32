"""Caches of decoded images, and decoding at a reduced scale: the same samples, sooner."""

import copy
import os
import shutil
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from detlit.data import (
    CocoDataset,
    ConcatDataset,
    DetectionDataModule,
    DetectionDataset,
    GroundTruth,
    HuggingFaceDataset,
    SampleIndex,
    ShapesDataset,
)
from detlit.data import image_cache as caches
from detlit.data.images import read_image
from detlit.data.transforms import Mosaic, RandomAffine
from detlit.errors import ConfigurationError
from tests.data.conftest import CocoWriter


class Files(DetectionDataset):
    """JPEGs of a folder, each with a bright block; ``cut`` takes that many rows from the top."""

    class_names = ("block",)

    def __init__(self, folder: str, cut: int = 0) -> None:
        self.folder, self.cut = folder, cut
        self.decoded = 0

    def __len__(self) -> int:
        return 6

    def load_image(self, index: int) -> NDArray[np.uint8]:
        self.decoded += 1
        image = read_image(Path(self.folder, f"{index}.jpg"))
        return image[self.cut :] if self.cut else image

    def load_target(self, index: int) -> GroundTruth:
        box = [[100 + 10 * index, 50 - self.cut, 260 + 10 * index, 170 - self.cut]]
        return {"boxes": box, "labels": [0], "path": str(Path(self.folder, f"{index}.jpg"))}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(6):
        write(tmp_path / f"{index}.jpg", index)
    return tmp_path


def write(file: Path, index: int, level: int = 220) -> None:
    image = np.full((321, 479, 3), 20, dtype=np.uint8)
    image[50:170, 100 + 10 * index : 260 + 10 * index] = level
    cv2.imwrite(str(file), image, [cv2.IMWRITE_JPEG_QUALITY, 100])


def module(dataset: DetectionDataset, **arguments: Any) -> DetectionDataModule:
    defaults: dict[str, Any] = {"image_size": 96, "batch_size": 2, "num_workers": 0, "augmentations": [Mosaic()]}
    return DetectionDataModule(dataset, **{**defaults, **arguments})


def batches(data: DetectionDataModule, epochs: int = 2) -> list[torch.Tensor]:
    loader = data.train_dataloader()
    drawn = []
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            drawn += [batch.images, batch.boxes]
    return drawn


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("reduced", [False, True])
@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_a_cache_changes_nothing(folder: Path, cache: str, reduced: bool, workers: int) -> None:
    data = {
        kind: module(
            Files(str(folder)),
            cache=kind,
            cache_dir=str(folder / "cache"),
            reduced_decoding=reduced,
            num_workers=workers,
            augmentations=[Mosaic(), RandomAffine()],
        )
        for kind in (None, cache)
    }
    for plain, cached in zip(batches(data[None]), batches(data[cache]), strict=True):
        assert torch.equal(plain, cached)


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_an_image_is_decoded_once(folder: Path, cache: str) -> None:
    data = module(Files(str(folder)), cache=cache, cache_dir=str(folder / "cache"))
    dataset = data.dataset("train")
    assert isinstance(dataset, Files)
    batches(data, 1)
    decoded = dataset.decoded
    batches(data, 3)
    assert dataset.decoded == decoded
    plain = module(Files(str(folder)))
    batches(plain, 1)
    assert plain.dataset("train").decoded == 24  # type: ignore[union-attr]


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_cached_pixels_cannot_be_changed(folder: Path, cache: str) -> None:
    data = module(Files(str(folder)), cache=cache, cache_dir=str(folder / "cache"))
    dataset = data.dataset("train")
    assert dataset is not None
    for _ in range(2):
        sample = dataset.load_sample(0)
    with pytest.raises(ValueError, match="read-only"):
        sample.image[0, 0] = 0


def test_validation_is_cached_and_test_is_not(folder: Path) -> None:
    splits = {"val": Files(str(folder)), "test": Files(str(folder))}
    data = DetectionDataModule(**splits, cache="ram", image_size=96, num_workers=0)  # type: ignore[arg-type]
    assert data.dataset("val").decoding.cache is not None  # type: ignore[union-attr]
    assert data.dataset("test").decoding.cache is None  # type: ignore[union-attr]


def test_workers_that_are_not_forked_share_the_memory_too(folder: Path) -> None:
    """What a DataLoader sends them names the memory instead of holding the pixels; forked ones inherit it anyway."""
    dataset = module(Files(str(folder)), cache="ram").dataset("train")
    assert dataset is not None
    assert dataset.decoding is not None
    cache = dataset.decoding.cache
    assert isinstance(cache, caches.RamCache)
    sent = ForkingPickler.dumps(cache)
    assert len(sent) < 10_000 < sum(len(arena) for arena in cache._arenas)
    assert all(arena.is_shared() for arena in cache._arenas)
    np.testing.assert_array_equal(dataset.load_sample(2).image, Files(str(folder)).load_image(2))


# ---------------------------------------------------------------------------------------------------- on disk
def test_later_runs_find_the_files_and_changed_images_are_decoded_anew(folder: Path) -> None:
    def first_image() -> tuple[int, int]:
        data = module(Files(str(folder)), cache="disk", cache_dir=str(folder / "cache"))
        dataset = data.dataset("train")
        assert isinstance(dataset, Files)
        dataset.decoded = 0
        level = int(dataset.load_sample(0).image[100, 150, 0])
        return dataset.decoded, level

    assert first_image() == (1, 220)
    assert first_image() == (0, 220)
    write(folder / "0.jpg", 0, level=90)
    os.utime(folder / "0.jpg", ns=(1, 1))
    assert first_image() == (1, 90)


def test_other_arguments_have_other_images(folder: Path) -> None:
    heights = []
    for cut in (0, 40):
        data = module(Files(str(folder), cut), cache="disk", cache_dir=str(folder / "cache"))
        heights.append(data.dataset("train").load_sample(0).image.shape[0])  # type: ignore[union-attr]
    assert heights == [321, 281]


def test_files_are_written_whole_or_not_at_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = module(Files(str(folder)), cache="disk", cache_dir=str(folder / "cache"))
    dataset = data.dataset("train")
    assert dataset is not None

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(ConfigurationError, match=r"the disk of the image cache .* is full: free some space"):
            dataset.load_sample(0)
    assert [file for file in (folder / "cache").rglob("*") if file.is_file()] == []
    dataset.load_sample(0)
    assert len([file for file in (folder / "cache").rglob("*") if file.is_file()]) == 1


def test_what_does_not_fit_is_refused_before_the_first_image(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10**6}))
    message = (
        r"data\.cache=disk needs about 2\.77 MB for the decoded images, and 1 MB are free \(.*\): set data\.cache_dir"
    )
    with pytest.raises(ConfigurationError, match=message):
        module(Files(str(folder)), cache="disk", cache_dir=str(folder / "cache")).setup("fit")
    monkeypatch.setattr(caches, "_free_memory", lambda: 10**6)
    with pytest.raises(ConfigurationError, match=r"data\.cache=ram needs about 2\.77 MB .*: take data\.cache=disk"):
        module(Files(str(folder)), cache="ram").setup("fit")


def test_images_that_are_there_need_no_space(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def setup() -> DetectionDataset:
        dataset = module(Files(str(folder)), cache="disk", cache_dir=str(folder / "cache")).dataset("train")
        assert dataset is not None
        return dataset

    dataset = setup()
    for index in range(6):
        dataset.load_sample(index)
    monkeypatch.setattr(caches.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10**6}))
    setup()


def test_a_data_set_made_of_objects_cannot_be_told_apart_on_disk(folder: Path) -> None:
    class Made(Files):
        def __init__(self, folder: str, source: object) -> None:
            super().__init__(folder)

    with pytest.raises(ConfigurationError, match=r"cache=disk cannot tell the images of Made.*take data\.cache=ram"):
        module(Made(str(folder), object()), cache="disk", cache_dir=str(folder)).setup("fit")


class Loose(DetectionDataset):
    """One image of one colour in no file."""

    class_names = ("block",)
    level = 0

    def __len__(self) -> int:
        return 1

    def load_image(self, index: int) -> NDArray[np.uint8]:
        return np.full((64, 64, 3), self.level, dtype=np.uint8)

    def load_target(self, index: int) -> GroundTruth:
        return {"boxes": [[0, 0, 9, 9]], "labels": [0]}


class Known(Loose):
    """The same, but it tells when the colour changes."""

    def fingerprint(self) -> str | None:
        return str(self.level)


def first_pixel(dataset: DetectionDataset, folder: Path) -> int:
    prepared = module(dataset, cache="disk", cache_dir=str(folder), batch_size=1).dataset("train")
    return int(prepared.load_sample(0).image[0, 0, 0])  # type: ignore[union-attr]


def test_images_in_no_files_are_cached_on_disk_only_with_a_fingerprint(folder: Path, tmp_path: Path) -> None:
    cause = r"cache=disk cannot notice changes of image {} of {}, which is no file of its own: take data\.cache=ram, or"
    with pytest.raises(ConfigurationError, match=cause.format(0, "Loose")):
        first_pixel(Loose(), tmp_path / "cache")
    with pytest.raises(ConfigurationError, match=cause.format(6, "ConcatDataset")):
        first_pixel(ConcatDataset([Files(str(folder)), Loose()]), tmp_path / "cache")


@pytest.mark.parametrize("joined", [False, True])
def test_a_changed_fingerprint_gets_new_images(
    joined: bool, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = []
    for level in (10, 20):
        monkeypatch.setattr(Loose, "level", level)
        dataset = ConcatDataset([Known(), Files(str(folder))]) if joined else Known()
        pixels.append(first_pixel(dataset, tmp_path / "cache"))
    assert pixels == [10, 20]


def test_an_arrow_table_that_is_saved_anew_gets_new_images(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    pixels = []
    for level in (10, 20):
        image = cv2.imencode(".png", np.full((64, 64, 3), level, dtype=np.uint8))[1].tobytes()
        columns = {"image": [image], "objects": [{"bbox": [[0, 0, 9, 9]], "category": ["block"]}]}
        rows = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
        shutil.rmtree(tmp_path / "table", ignore_errors=True)
        rows.save_to_disk(str(tmp_path / "table"))
        pixels.append(first_pixel(HuggingFaceDataset(str(tmp_path / "table")), tmp_path / "cache"))
    assert pixels == [10, 20]


def test_a_folder_that_cannot_be_used(folder: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"the cache folder .* cannot be used .*: set data\.cache_dir to another"
    ):
        module(Files(str(folder)), cache="disk", cache_dir=str(folder / "0.jpg")).setup("fit")


def test_the_default_folder_is_the_users(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "home"))
    module(Files(str(folder)), cache="disk").dataset("train").load_sample(0)  # type: ignore[union-attr]
    assert len(list((folder / "home/detlit/images").rglob("*.rgb"))) == 1


# ---------------------------------------------------------------------------------------------------- in memory
def test_generated_images_and_large_ones_fit_into_the_memory_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "_ARENA_BYTES", 3 * 64 * 64 + 10)  # one image each, with something left
    data = module(ShapesDataset(5, 64), cache="ram", image_size=64)
    dataset = data.dataset("train")
    assert dataset is not None
    for index in range(5):
        np.testing.assert_array_equal(dataset.load_sample(index).image, ShapesDataset(5, 64).load_image(index))


# ------------------------------------------------------------------------------------------------ reduced scale
def test_reduced_decoding_changes_pixels_a_little_and_boxes_not_at_all(folder: Path) -> None:
    for augmentations in ([], [RandomAffine()]):
        data = [
            module(Files(str(folder)), reduced_decoding=reduced, augmentations=augmentations)
            for reduced in (False, True)
        ]
        datasets = [copy.copy(each.dataset("train")) for each in data]
        samples = [dataset.load_sample(1) for dataset in datasets]  # type: ignore[union-attr]
        assert [sample.image.shape for sample in samples] == [(321, 479, 3), (81, 120, 3)]
        assert [sample.orig_size for sample in samples] == [(321, 479)] * 2
        for index in range(6):
            (whole, target), (reduced, other) = (dataset[SampleIndex(index, 1)] for dataset in datasets)  # type: ignore[index]
            torch.testing.assert_close(other["boxes"], target["boxes"], atol=1.0 if augmentations else 1e-4, rtol=0)
            assert (whole.float() - reduced.float()).abs().mean() < 4


def test_sizes_that_are_asked_for_stay_reachable(folder: Path) -> None:
    for multi_scale, shape in ((None, (81, 120, 3)), ((0.5, 2.0), (161, 240, 3))):
        data = module(Files(str(folder)), reduced_decoding=True, multi_scale=multi_scale)
        assert data.dataset("train").load_sample(0).image.shape == shape  # type: ignore[union-attr]


def test_a_data_set_that_changes_what_it_read_gets_whole_images(folder: Path) -> None:
    data = module(Files(str(folder), cut=40), reduced_decoding=True)
    assert data.dataset("train").load_sample(0).image.shape == (281, 479, 3)  # type: ignore[union-attr]


def test_small_images_other_formats_and_validation_are_decoded_whole(folder: Path, write_coco: CocoWriter) -> None:
    assert module(Files(str(folder)), reduced_decoding=True, image_size=320).dataset("train").load_sample(  # type: ignore[union-attr]
        0
    ).image.shape == (321, 479, 3)
    val = DetectionDataModule(val=Files(str(folder)), reduced_decoding=True, image_size=96)
    assert val.dataset("val").load_sample(0).image.shape == (321, 479, 3)  # type: ignore[union-attr]
    png = CocoDataset("train.json", "images/train", root=str(write_coco()))
    data = DetectionDataModule(png, reduced_decoding=True, image_size=32, batch_size=1)
    assert data.dataset("train").load_sample(0).image.shape == (30, 40, 3)  # type: ignore[union-attr]


@pytest.mark.parametrize("left", [0, 10, 100])
def test_a_file_of_the_disk_cache_that_was_cut_short_is_made_again(folder: Path, tmp_path: Path, left: int) -> None:
    data = module(Files(str(folder)), cache="disk", cache_dir=str(tmp_path / "cache"))
    whole = [batch.images for batch in data.train_dataloader()]
    for file in (tmp_path / "cache").rglob("*.rgb"):
        file.write_bytes(file.read_bytes()[:left])
    again = [batch.images for batch in data.train_dataloader()]
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))


def test_more_processes_than_cores_share_no_pool_of_no_threads(folder: Path) -> None:
    data = module(Files(str(folder)), cache="ram")
    data.trainer = SimpleNamespace(num_devices=10_000, global_rank=0)  # type: ignore[assignment]
    data.setup("fit")
    assert len(data.dataset("train") or ()) == 6


def test_arrays_that_a_data_set_returns_stay_writeable() -> None:
    images = [np.zeros((64, 64, 3), dtype=np.uint8) for _ in range(6)]

    class Arrays(Files):
        def load_image(self, index: int) -> NDArray[np.uint8]:
            return images[index]

    list(module(Arrays(""), augmentations=[Mosaic(partners="batch")]).train_dataloader())
    assert all(image.flags.writeable for image in images)


def test_a_disk_cache_that_is_whole_decodes_nothing(folder: Path, tmp_path: Path) -> None:
    data = module(Files(str(folder)), cache="disk", cache_dir=str(tmp_path / "cache"))
    list(data.train_dataloader())
    again = module(Files(str(folder)), cache="disk", cache_dir=str(tmp_path / "cache"))
    list(again.train_dataloader())
    assert again.dataset("train").decoded == 0  # type: ignore[union-attr]
