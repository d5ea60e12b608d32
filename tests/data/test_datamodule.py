"""The data module: splits, classes, loaders, and that workers and ranks change nothing."""

import copy
import io
import pickle
import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from detlit.data import (
    CocoDataset,
    ConcatDataset,
    DetectionDataModule,
    DetectionDataset,
    GroundTruth,
    ListDataset,
    ShapesDataset,
)
from detlit.data.collation import collate
from detlit.data.transforms import BatchHSV, CutOut, HorizontalFlip, Mixup, Mosaic, RandomAffine, RandomHSV
from detlit.errors import ConfigurationError, DatasetError
from detlit.spec import build, init_spec_of
from detlit.structures import Batch, Preprocessing
from tests.data.conftest import CocoWriter, three_images


class Counter(LightningModule):
    """Notes which images each step saw."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.seen: dict[str, list[int]] = {"train": [], "val": [], "test": [], "predict": []}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.seen["train"] += batch.dataset_indices
        return self.layer(batch.images.float().mean().reshape(1, 1)).sum()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.seen["val"] += batch.dataset_indices

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.seen["test"] += batch.dataset_indices

    def predict_step(self, batch: Batch, batch_idx: int) -> None:
        self.seen["predict"] += batch.dataset_indices

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-6)


def trainer(tmp_path: Path, **arguments: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        **{"max_epochs": 1, "num_sanity_val_steps": 0, **arguments},
    )


def shapes_module(**arguments: Any) -> DetectionDataModule:
    defaults = {"train": ShapesDataset(10, 64), "image_size": 64, "batch_size": 4, "num_workers": 0}
    return DetectionDataModule(**{**defaults, **arguments})


def train_batches(data: DetectionDataModule, epochs: int = 2) -> list[Batch]:
    loader = data.train_dataloader()
    batches = []
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        batches += list(loader)
    return batches


def test_without_arguments_it_is_shapes() -> None:
    data = DetectionDataModule()
    assert data.class_names == ("circle", "triangle", "square", "star", "ring", "cross")
    assert data.num_classes == 6
    assert data.preprocessing == Preprocessing(size=(640, 640))
    train, val = data.dataset("train"), data.dataset("val")
    assert train is not None
    assert val is not None
    assert not torch.equal(train[0][0], val[0][0])
    assert data.test_dataloader() == []


def test_the_network_input_is_image_size_or_preprocessing() -> None:
    assert DetectionDataModule().preprocessing.size == (640, 640)
    assert DetectionDataModule(image_size=(320, 416)).preprocessing.size == (320, 416)
    published = Preprocessing(content_size=(636, 636), channel_order="BGR")
    expected = Preprocessing(size=(320, 320), content_size=(318, 318), channel_order="BGR")
    assert DetectionDataModule(image_size=320, preprocessing=published).preprocessing == expected
    preprocessing = Preprocessing(size=(64, 64), keep_ratio=False)
    assert DetectionDataModule(preprocessing=preprocessing).preprocessing is preprocessing
    with pytest.raises(ConfigurationError, match="image size 250x250"):
        DetectionDataModule(image_size=250)


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_are_the_same_for_any_number_of_workers(workers: int) -> None:
    alone, together = (train_batches(shapes_module(num_workers=count)) for count in (0, workers))
    assert len(alone) == len(together) == 4
    for expected, batch in zip(alone, together, strict=True):
        assert torch.equal(batch.images, expected.images)
        assert torch.equal(batch.boxes, expected.boxes)
        assert batch.dataset_indices == expected.dataset_indices


def test_epochs_and_seeds_differ() -> None:
    first = train_batches(shapes_module())
    assert not torch.equal(first[0].images, first[2].images)
    assert not torch.equal(first[0].images, train_batches(shapes_module(seed=1))[0].images)


def test_the_same_image_is_augmented_differently_in_each_epoch() -> None:
    batches = train_batches(shapes_module(train=ShapesDataset(1, 64), batch_size=1), epochs=3)
    assert not torch.equal(batches[0].images, batches[1].images)
    assert not torch.equal(batches[1].images, batches[2].images)


def test_augmentations_can_be_chosen_or_left_out() -> None:
    plain = shapes_module(train=ShapesDataset(1, 64), batch_size=1, augmentations=[])
    flipped = shapes_module(train=ShapesDataset(1, 64), batch_size=1, augmentations=[HorizontalFlip(1.0)])
    image = ShapesDataset(1, 64)[0][0]
    assert torch.equal(train_batches(plain, 1)[0].images[0], image)
    assert torch.equal(train_batches(flipped, 1)[0].images[0], image.flip(-1))


def test_validation_is_in_order_not_augmented_and_whole() -> None:
    data = shapes_module(val=ShapesDataset(7, 64, seed=1), val_batch_size=3)
    batches = list(data.val_dataloader())
    assert [index for batch in batches for index in batch.dataset_indices] == list(range(7))  # type: ignore[union-attr]
    assert torch.equal(batches[1].images[0], ShapesDataset(7, 64, seed=1)[3][0])  # type: ignore[union-attr]


def test_the_last_incomplete_training_batch_is_left_out() -> None:
    assert [len(batch) for batch in train_batches(shapes_module(), epochs=1)] == [4, 4]


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="batch_size=64 is more than the 10 training images"):
        shapes_module(batch_size=64).train_dataloader()


def test_loaders_of_a_gpu_run_pin_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shapes_module().train_dataloader().pin_memory is torch.cuda.is_available()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert shapes_module().train_dataloader().pin_memory


def test_workers_persist_and_few_images_need_none() -> None:
    assert shapes_module(num_workers=1).train_dataloader().persistent_workers
    assert shapes_module(num_workers=None).train_dataloader().num_workers == 0
    many = shapes_module(num_workers=None, train=ShapesDataset(64, 64)).train_dataloader().num_workers
    assert 1 <= many <= 8


# ------------------------------------------------------------------------------------------------- Trainer
def test_a_run_sees_every_image(tmp_path: Path) -> None:
    data, module = shapes_module(val=ShapesDataset(5, 64), batch_size=5), Counter()
    trainer(tmp_path, max_epochs=2).fit(module, data)
    assert sorted(module.seen["train"]) == sorted([*range(10)] * 2)
    assert module.seen["train"][:10] != module.seen["train"][10:]  # Lightning set the epoch
    assert module.seen["val"] == [*range(5)] * 2


def test_missing_splits_are_skipped(tmp_path: Path) -> None:
    module = Counter()
    trainer(tmp_path).fit(module, shapes_module())
    trainer(tmp_path).test(module, shapes_module())
    assert (len(module.seen["train"]), module.seen["val"], module.seen["test"]) == (8, [], [])


def test_predict_takes_test_or_validation(tmp_path: Path) -> None:
    module = Counter()
    val, test = ShapesDataset(3, 64), ShapesDataset(2, 64)
    trainer(tmp_path).predict(module, shapes_module(val=val, test=test))
    trainer(tmp_path).predict(module, shapes_module(val=val))
    assert module.seen["predict"] == [0, 1, 0, 1, 2]


def test_validation_needs_no_training_data(tmp_path: Path) -> None:
    data = DetectionDataModule(val=ShapesDataset(3, 64), image_size=64)
    module = Counter()
    trainer(tmp_path).validate(module, data)
    assert module.seen["val"] == [0, 1, 2]
    with pytest.raises(ConfigurationError, match=r"there are no training data: set data\.train"):
        data.train_dataloader()


@pytest.mark.distributed
@pytest.mark.slow
def test_two_ranks_share_the_images(tmp_path: Path) -> None:
    class Written(Counter):
        def on_fit_end(self) -> None:
            torch.save(self.seen, tmp_path / f"{self.global_rank}.pt")

    data = shapes_module(val=ShapesDataset(5, 64), batch_size=2)
    trainer(tmp_path, max_epochs=2, strategy="ddp_fork", devices=2).fit(Written(), data)
    seen = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    epochs = [seen[0]["train"][part] + seen[1]["train"][part] for part in (slice(0, 4), slice(4, 8))]
    assert [len(set(epoch)) for epoch in epochs] == [8, 8]
    assert epochs[0] != epochs[1]
    assert set(seen[0]["val"] + seen[1]["val"]) == set(range(5))


# ------------------------------------------------------------------------------------------- COCO and classes
def test_root_and_classes_reach_data_sets_and_the_given_ones_stay_as_they_were(write_coco: CocoWriter) -> None:
    root = write_coco()
    train = CocoDataset("train.json", "images/train")
    before = copy.copy(vars(train))
    data = DetectionDataModule(train=train, root=str(root), image_size=64, batch_size=1, class_names=["dog", "cat"])
    ready = data.dataset("train")
    assert isinstance(ready, CocoDataset)
    assert (ready.root, tuple(ready.class_names)) == (str(root), ("dog", "cat"))
    assert vars(train) == before


def test_a_root_of_its_own_is_kept(write_coco: CocoWriter) -> None:
    root = str(write_coco())
    data = DetectionDataModule(train=CocoDataset("train.json", "images/train", root=root), root="/elsewhere")
    assert data.class_names == ("cat", "owl", "dog")


def test_classes_given_need_no_file() -> None:
    data = DetectionDataModule(train=CocoDataset("nowhere.json"), root="/does/not/exist", class_names=["a", "b"])
    assert (data.class_names, data.num_classes) == (("a", "b"), 2)


def test_classes_not_given_are_read_at_once() -> None:
    with pytest.raises(DatasetError, match=r"there is no annotation file /does/not/exist/a\.json: check data\.root"):
        DetectionDataModule(train=CocoDataset("a.json"), root="/does/not/exist")


def test_setup_reads_only_what_the_stage_needs(write_coco: CocoWriter) -> None:
    data = DetectionDataModule(
        train=CocoDataset("train.json", "images/train"),
        test=CocoDataset("missing.json"),
        root=str(write_coco()),
    )
    data.setup("fit")
    with pytest.raises(DatasetError, match=r"missing\.json"):
        data.setup("test")


def test_labels_follow_names_where_validation_lists_other_ids(write_coco: CocoWriter) -> None:
    content = three_images()
    content["categories"] = [{"id": 7, "name": "cat"}, {"id": 2, "name": "dog"}]
    write_coco(content, name="val")
    data = DetectionDataModule(
        train=CocoDataset("train.json", "images/train"),
        val=CocoDataset("val.json", "images/val"),
        root=str(write_coco()),
    )
    val = data.dataset("val")
    assert val is not None
    assert [data.class_names[label] for label in val[2][1]["labels"]] == ["cat", "dog"]


def test_validation_classes_that_training_lacks_are_refused(write_coco: CocoWriter) -> None:
    content = three_images()
    content["categories"] = [*content["categories"], {"id": 9, "name": "emu"}]
    write_coco(content, name="val")
    splits = {"train": CocoDataset("train.json", "images/train"), "val": CocoDataset("val.json", "images/val")}
    root = str(write_coco())
    with pytest.raises(DatasetError, match=r"the val split has a class 'emu' that the train split lacks \(it has cat"):
        DetectionDataModule(**splits, root=root).setup("validate")  # type: ignore[arg-type]
    chosen = DetectionDataModule(**splits, root=root, class_names=["cat", "dog"])  # type: ignore[arg-type]
    chosen.setup("fit")  # emu and owl are declared, but nothing is annotated as such


def test_evaluation_keeps_the_original_boxes(write_coco: CocoWriter) -> None:
    root = str(write_coco())
    data = DetectionDataModule(val=CocoDataset("train.json", "images/train"), root=root, image_size=64, batch_size=3)
    (batch,) = data.val_dataloader()
    assert isinstance(batch, Batch)
    assert batch.geometry[2].tolist() == [64 / 60, 32 / 30, 0, 16]
    assert batch.targets[2]["orig_boxes"].tolist() == [[1, 2, 11, 22], [5, 5, 10, 10]]
    torch.testing.assert_close(batch.targets[0]["boxes"], torch.tensor([[0.8, 8.4, 6.0, 21.2]]))


# --------------------------------------------------------------------------------------------- arguments
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, r"batch_size=0 is too small: set data\.batch_size to 1 or more"),
        ({"val_batch_size": 0}, "val_batch_size=0"),
        ({"num_workers": -1}, "num_workers=-1"),
        ({"seed": -1}, "seed=-1"),
        ({"class_names": []}, "must be names, each once"),
        ({"class_names": "red"}, "must be names, each once"),
        ({"class_names": ["a", "a"]}, "must be names, each once"),
        ({"root": "somewhere"}, "root=somewhere is given, but no data set reads it"),
    ],
)
def test_arguments_that_cannot_be(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        DetectionDataModule(**arguments)


def test_a_root_that_no_data_set_reads_is_told() -> None:
    with pytest.warns(UserWarning, match="root=somewhere is given, but ShapesDataset does not read it"):
        DetectionDataModule(train=ShapesDataset(4), root="somewhere")


def test_shapes_with_other_class_names_are_refused() -> None:
    with pytest.raises(DatasetError, match="ShapesDataset has the classes"):
        DetectionDataModule(class_names=["a", "b"]).setup("fit")


def test_it_round_trips_through_plain_data(write_coco: CocoWriter) -> None:
    data = DetectionDataModule(
        train=CocoDataset("train.json", "images/train"),
        root=str(write_coco()),
        preprocessing=Preprocessing(size=(64, 96)),
        augmentations=[HorizontalFlip(1.0)],
    )
    spec = init_spec_of(data)
    again = DetectionDataModule(**build(spec))
    assert init_spec_of(again) == spec
    assert again.class_names == data.class_names
    assert isinstance(again.augmentations[0], HorizontalFlip)


def test_data_sets_work_in_a_plain_loader() -> None:
    data = ShapesDataset(4, 64)
    loader = DataLoader(data, batch_size=2, collate_fn=collate)  # type: ignore[arg-type]
    counts = [count for batch in loader for count in batch.counts]
    assert counts == [len(data.load_sample(index).boxes) for index in range(4)]


# ------------------------------------------------------------------------------------- batches made by the sampler
def all_values(batches: list[Batch]) -> list[Tensor]:
    return [value for batch in batches for value in (batch.images, batch.boxes, batch.labels, batch.image_index)]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("partners", ["dataset", "batch"])
def test_combined_batches_are_the_same_for_any_number_of_workers(workers: int, partners: Any) -> None:
    augmentations = [Mosaic(partners=partners), Mixup(), RandomAffine(), CutOut(), RandomHSV()]
    options: dict[str, Any] = {"augmentations": augmentations, "multi_scale": (0.5, 1.5), "repeat_threshold": 0.9}
    alone, together = (train_batches(shapes_module(num_workers=count, **options)) for count in (0, workers))
    assert len(alone) >= 4
    for expected, value in zip(all_values(alone), all_values(together), strict=True):
        assert torch.equal(value, expected)


def test_multi_scale_draws_a_size_per_batch() -> None:
    data = shapes_module(image_size=(64, 128), multi_scale=(0.5, 2.0), batch_size=2)
    sizes = [tuple(batch.images.shape[2:]) for batch in train_batches(data, epochs=8)]
    assert set(sizes) == {(32, 64), (64, 128), (96, 192), (128, 256)}
    for batch in train_batches(data, epochs=2):
        height, width = batch.images.shape[2:]
        assert batch.boxes[:, 2].max() <= width
        assert batch.boxes[:, 3].max() <= height
    assert {tuple(batch.images.shape[2:]) for batch in train_batches(shapes_module())} == {(64, 64)}
    with pytest.raises(ConfigurationError, match=r"multi_scale=\(0.9, 1.1\) leaves fewer than two sizes around 64x64"):
        shapes_module(multi_scale=(0.9, 1.1))


def test_multi_scale_keeps_the_share_of_the_content() -> None:
    preprocessing = Preprocessing(size=(64, 64), content_size=(60, 60), pad_value=0)
    data = shapes_module(preprocessing=preprocessing, multi_scale=(1.0, 2.0), augmentations=[])
    for batch in train_batches(data, epochs=3):
        side = batch.images.shape[2]
        rows = batch.images.amax(dim=(0, 1, 3)).nonzero()
        assert int(rows[-1] - rows[0]) + 1 == round(60 * side / 64)


def test_rare_classes_are_repeated() -> None:
    class Rare(ShapesDataset):
        def load_target(self, index: int) -> GroundTruth:
            empty = index == 5
            return {"boxes": [[1, 1, 9, 9]][empty:], "labels": [int(index == 0)][empty:]}

    data = shapes_module(train=Rare(16, 64), repeat_threshold=0.25, augmentations=[Mosaic(0.0)], batch_size=1)
    drawn = [index for batch in train_batches(data, epochs=1) for index in batch.dataset_indices]
    assert len(drawn) == 17  # one image of 16 has the class: sqrt(0.25 * 16) = 2
    assert drawn.count(0) == 2
    assert len(train_batches(shapes_module(train=Rare(16, 64), batch_size=1), epochs=1)) == 16


def test_a_repeated_image_is_augmented_differently() -> None:
    class Rare(ShapesDataset):
        def load_target(self, index: int) -> GroundTruth:
            return {"boxes": [[1, 1, 40, 40]], "labels": [int(index == 0)]}

    data = shapes_module(train=Rare(16, 64), repeat_threshold=0.9, batch_size=1)
    images = [batch.images for batch in train_batches(data, epochs=1) if batch.dataset_indices == [0]]
    assert len(images) >= 3
    assert not any(torch.equal(images[0], other) for other in images[1:])


def test_an_unknown_cache_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="cache='gpu' is unknown: choose 'ram', 'disk' or null"):
        shapes_module(cache="gpu")


# --------------------------------------------------------------------------------------------------- transport
class TensorCounter(pickle.Pickler):
    """Counts the tensors of what it pickles."""

    tensors = 0

    def persistent_id(self, value: object) -> str | None:
        self.tensors += isinstance(value, Tensor)
        return "tensor" if isinstance(value, Tensor) else None


@pytest.mark.parametrize("batch_size", [1, 16])
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_batch_crosses_the_worker_boundary_in_few_tensors(batch_size: int, split: str) -> None:
    options: dict[str, Any] = {split: ShapesDataset(16, 64), "batch_size": batch_size, "image_size": 64}
    data = DetectionDataModule(**options, augmentations=[Mosaic()], num_workers=0)
    loader = data.train_dataloader() if split == "train" else data.val_dataloader()
    batch = next(iter(loader))
    assert isinstance(batch, Batch)
    assert batch.images.dtype == torch.uint8
    counter = TensorCounter(io.BytesIO())
    counter.dump(batch)
    assert 6 <= counter.tensors <= 12


# ------------------------------------------------------------------------------------------------------- device
class Viewer(Counter):
    """Keeps the images of each step as they arrive in it."""

    def __init__(self) -> None:
        super().__init__()
        self.images: dict[tuple[str, int, int], Tensor] = {}

    def keep(self, stage: str, batch: Batch) -> None:
        for index, image in zip(batch.dataset_indices, batch.images, strict=True):
            self.images[stage, self.current_epoch, index] = image

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.keep("train", batch)
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.keep("val", batch)


def test_batch_transforms_are_applied_in_training_alone_and_follow_the_seed(tmp_path: Path) -> None:
    def run(augmentations: list[Any], batch_size: int = 4, seed: int = 0) -> dict[tuple[str, int, int], Tensor]:
        module, val = Viewer(), ShapesDataset(4, 64, seed=1)
        train = ShapesDataset(8, 64)
        data = shapes_module(train=train, val=val, augmentations=augmentations, batch_size=batch_size, seed=seed)
        trainer(tmp_path, max_epochs=2).fit(module, data)
        return module.images

    plain, coloured, again, split, other = (
        run([]),
        run([BatchHSV()]),
        run([BatchHSV()]),
        run([BatchHSV()], 2),
        run([BatchHSV()], seed=1),
    )
    assert len(plain) == 24
    for key, image in plain.items():
        assert torch.equal(coloured[key], again[key])
        assert torch.equal(coloured[key], split[key])  # whatever batch an image is in
        assert torch.equal(coloured[key], image) == (key[0] == "val")
        assert torch.equal(coloured[key], other[key]) == (key[0] == "val")
    assert not torch.equal(coloured["train", 0, 0], coloured["train", 1, 0])


class Colours(Counter):
    """Keeps the colour of each image of a uniform grey by its index, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.colours: dict[int, list[tuple[int, ...]]] = defaultdict(list)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        for index, image in zip(batch.dataset_indices, batch.images, strict=True):
            self.colours[index].append(tuple(image[:, 0, 0].tolist()))
        return super().training_step(batch, batch_idx)


class Red(ShapesDataset):
    """Images of one colour, of which the first alone has the first class."""

    def load_image(self, index: int) -> NDArray[np.uint8]:
        return np.full((64, 64, 3), (200, 90, 60), dtype=np.uint8)

    def load_target(self, index: int) -> GroundTruth:
        return {"boxes": [[1, 1, 40, 40]], "labels": [int(index == 0)]}


def test_a_repeated_image_gets_other_colours_on_the_device(tmp_path: Path) -> None:
    def run(batch_size: int) -> dict[int, list[tuple[int, ...]]]:
        module = Colours()
        data = shapes_module(
            train=Red(16, 64), augmentations=[BatchHSV(hgain=60)], repeat_threshold=9 / 16, batch_size=batch_size
        )
        trainer(tmp_path).fit(module, data)
        return module.colours

    alone, together = run(1), run(6)
    assert len(alone[0]) == 3  # one image of 16 has the class: sqrt(9 / 16 * 16)
    assert len(set(alone[0])) == 3
    assert alone == together  # 18 draws, whatever batch they are in


def test_images_of_an_unknown_index_get_colours_of_their_own(tmp_path: Path) -> None:
    class Foreign(Red):
        def __getitem__(self, index: Any) -> Any:
            image, target = super().__getitem__(index)
            return image, {"boxes": target["boxes"], "labels": target["labels"]}

    module = Colours()
    data = shapes_module(train=Foreign(12, 64), augmentations=[BatchHSV(hgain=60)], batch_size=4)
    trainer(tmp_path, max_epochs=2).fit(module, data)
    assert len(module.colours[-1]) == 24
    assert len(set(module.colours[-1])) > 20  # now and then two look the same


def two_images(used: Sequence[str], declared: Sequence[str]) -> ListDataset:
    image = np.zeros((32, 32, 3), dtype=np.uint8)
    objects = [[4 * i, 1, 4 * i + 3, 9] for i in range(len(used))]
    return ListDataset([(image, objects, list(used)), (image, [], [])], list(declared))


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (
            two_images("bc", "abc"),
            r"no object of class 'a', so nothing is learned of it: list only b, c in data\.class_names",
        ),
        (
            two_images("b", "abc"),
            r"no object of classes 'a', 'c', so nothing is learned of them: list only b in ",
        ),
        (two_images("abcdefghijk", "abcdefghijkl"), r"list only the others in data\.class_names, unless"),
        (ConcatDataset([two_images("b", "bc"), two_images("a", "ad")]), "of classes 'c', 'd', "),
    ],
    ids=["one", "two", "many others", "of several data sets"],
)
def test_classes_without_training_objects_are_told(train: DetectionDataset, message: str) -> None:
    data = DetectionDataModule(train=train, num_workers=0)
    with pytest.warns(UserWarning, match=message) as caught:
        data.setup("fit")
    assert len(caught) == 1


def test_classes_are_told_of_in_training_only_and_where_counts_are_known() -> None:
    used, unused, none = two_images("ab", "ab"), two_images("a", "ab"), two_images("", "ab")
    shapes = ShapesDataset(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for train in (used, none, shapes, ConcatDataset([shapes])):
            DetectionDataModule(train=train, num_workers=0).setup("fit")
        DetectionDataModule(train=used, val=unused, test=unused, num_workers=0).setup()


def test_the_classes_told_of_can_be_left_out(write_coco: CocoWriter) -> None:
    root = str(write_coco())  # of the owls there are none
    train = CocoDataset("train.json", "images/train")
    data = DetectionDataModule(train=train, root=root, class_names=["cat", "dog"], num_workers=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.setup("fit")
    with pytest.warns(UserWarning, match=r"no object of class 'owl', .* list only cat, dog in"):
        DetectionDataModule(train=train, root=root, num_workers=0).setup("fit")
