"""The data set interface: a custom data set in ten lines, and its random state."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, RandomSampler

from detlit.data import DetectionDataset, GroundTruth, Sample, SampleIndex
from detlit.data.datasets import ConcatDataset, ShapesDataset
from detlit.data.decoding import Decoding
from detlit.errors import AnnotationError, DatasetError
from detlit.structures import Preprocessing


class Squares(DetectionDataset):
    class_names = ("red", "white")

    def __len__(self) -> int:
        return 12

    def load_image(self, index: int) -> NDArray[np.uint8]:
        return np.full((20, 30, 3), index, dtype=np.uint8)

    def load_target(self, index: int) -> GroundTruth:
        return {"boxes": [[1, 2, 3 + index, 4]], "labels": [index % 2]}


def draw(sample: Sample, generator: np.random.Generator) -> Sample:
    """A transform that shows which random state it was given."""
    sample.image = np.full((1, 1, 3), generator.integers(256), dtype=np.uint8)
    sample.image_id = int(generator.integers(2**62))
    return sample


def test_ten_lines_make_a_data_set() -> None:
    image, target = Squares()[5]
    assert (tuple(image.shape), image.dtype, int(image.max())) == ((3, 20, 30), torch.uint8, 5)
    assert target["boxes"].tolist() == [[1, 2, 8, 4]]
    assert target["labels"].tolist() == [1]
    assert (target["image_id"], target["dataset_index"], target["path"]) == (5, 5, "Squares[5]")
    assert target["geometry"].tolist() == [1, 1, 0, 0]
    assert (target["orig_area"].tolist(), target["orig_iscrowd"].tolist()) == ([14], [False])


@pytest.mark.parametrize("boxes", [[], np.zeros((0, 4)), np.zeros(0)], ids=["list", "0x4", "0"])
def test_an_image_may_be_empty(boxes: object) -> None:
    class Empty(Squares):
        def load_target(self, index: int) -> GroundTruth:
            return {"boxes": boxes, "labels": []}  # type: ignore[typeddict-item]

    target = Empty()[0][1]
    assert target["boxes"].shape == target["orig_boxes"].shape == (0, 4)
    assert target["labels"].dtype == torch.int64


def objects(*values: Any) -> NDArray[np.object_]:
    """Return an array as pandas gives it of columns of several types."""
    return np.array(values, dtype=object)


@pytest.mark.parametrize("labels", [objects(0, 1), objects(0.0, np.int64(1)), objects(np.float32(0), True)])
def test_labels_may_be_objects_that_are_whole_numbers(labels: NDArray[np.object_]) -> None:
    class Table(Squares):
        def load_target(self, index: int) -> GroundTruth:
            return {"boxes": [[1, 2, 3, 4], [5, 6, 7, 8]], "labels": labels}

    for data in (Table(), ConcatDataset([Table()])):
        assert data[0][1]["labels"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        ({"boxes": [[0, 0, 1, 1]], "labels": [2]}, r"Bad\[0\] has label 2: labels count from 0 to 1"),
        ({"boxes": [[0, 0, 1, 1]], "labels": [-1]}, r"has label -1"),
        ({"boxes": [[0, 0, 1, 1]], "labels": []}, r"has boxes \(1, 4\) for 0 labels"),
        ({"boxes": [[0, 0, 1]], "labels": [0]}, r"has boxes \(1, 3\) for 1 labels"),
        ({"boxes": [[0, 0, 1, float("nan")]], "labels": [0], "path": "a.png"}, "a.png has a box that is NaN"),
        ({"boxes": [[0, 0, 1, 1]], "labels": [None]}, r"Bad\[0\] has labels \[None\]: load_target must return whole"),
        ({"boxes": [[0, 0, 1, 1]], "labels": ["red"]}, r"Bad\[0\] has labels \['red'\]: load_target must return whole"),
        ({"boxes": [[0, 0, 1, 1]], "labels": [0.5]}, r"has labels \[0\.5\]: load_target must return whole numbers"),
        ({"boxes": [[0, 0, 1, 1]], "labels": objects(0.5)}, r"has labels array\(\[0\.5\], dtype=object\): load_target"),
        ({"boxes": [[0, 0, 1, 1]] * 2, "labels": objects(0, None)}, r"has labels array\(\[0, None\], dtype=object\): "),
        ({"boxes": [[0, 0, 1, 1]] * 2, "labels": objects(0, "1")}, r"has labels array\(\[0, '1'\], dtype=object\): "),
        ({"boxes": [[0, 0, 1, 1]], "labels": objects(float("nan"))}, r"has labels array\(\[nan\], dtype=object\): "),
        ({"boxes": [[0, 0, 1, 1]] * 2, "labels": [[0], [0, 1]]}, r"has labels \[\[0\], \[0, 1\]\]: load_target must"),
        ({"boxes": [[0, 0, 1, 1], [0]], "labels": [0, 0]}, r"Bad\[0\] has boxes that are not four numbers each"),
        ({"boxes": [[0, 0, 1, "x"]], "labels": [0]}, r"Bad\[0\] has boxes that are not four numbers each"),
    ],
)
def test_bad_targets_are_refused(truth: GroundTruth, message: str) -> None:
    class Bad(Squares):
        def load_target(self, index: int) -> GroundTruth:
            return truth

    with pytest.raises(AnnotationError, match=message):
        Bad()[0]
    with pytest.raises(AnnotationError):
        ConcatDataset([Bad()])[0]


def test_an_image_that_is_no_array_is_refused() -> None:
    class Bad(Squares):
        def load_image(self, index: int) -> NDArray[np.uint8]:
            return None  # type: ignore[return-value]

    for decoding in (None, Decoding(Preprocessing())):
        data = Bad()
        data.decoding = decoding
        with pytest.raises(DatasetError, match=r"^Bad\.load_image\(3\) returned NoneType: return a uint8 array"):
            data[3]


def test_boxes_with_corners_in_the_wrong_order_are_told_of_once() -> None:
    class Sizes(Squares):
        def load_target(self, index: int) -> GroundTruth:
            return {"boxes": [[1, 2, 3, 4], [10, 2, 5, 6]], "labels": [0, 1], "path": f"{index}.png"}

    data = Sizes()
    with pytest.warns(UserWarning, match=r"^3\.png has the box \[10\.0, 2\.0, 5\.0, 6\.0\], .*, and these may be xywh"):
        assert data[3][1]["labels"].tolist() == [0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert data[4][1]["labels"].tolist() == [0]
        Squares()[0]
    with pytest.warns(UserWarning, match=r"^0\.png has the box"):
        ConcatDataset([Squares(), Sizes()])[12]


@pytest.mark.parametrize(
    ("boxes", "refused"),
    [
        ([[0.1, 0.1, 0.5, 0.6], [0.2, 0.0, 1.0, 1.0]], True),
        ([[0.1, 0.1, 0.5, 0.6]], False),  # one tiny box may be a slip of the mouse
        ([[0.1, 0.1, 0.5, 0.6], [0.0, 0.0, 0.0, 0.0]], False),  # and boxes without area are counted elsewhere
        ([[0.1, 0.1, 0.5, 0.6], [0.2, 0.0, 1.0, 20.0]], False),
    ],
)
def test_normalised_boxes_are_refused(boxes: list[list[float]], refused: bool) -> None:
    class Normalised(Squares):
        def load_image(self, index: int) -> NDArray[np.uint8]:
            return np.zeros((48, 64, 3), dtype=np.uint8)

        def load_target(self, index: int) -> GroundTruth:
            return {"boxes": boxes, "labels": [0] * len(boxes), "path": "a.png"}

    if refused:
        with pytest.raises(AnnotationError, match=r"a\.png has the box \[0\.1, 0\.1, 0\.5, 0\.6\].* look normalised"):
            Normalised()[0]
    else:
        assert len(Normalised()[0][1]["orig_boxes"]) == len(boxes)


def test_tools_may_ask_any_data_set_for_paths_and_sizes(tmp_path: Path) -> None:
    class Files(Squares):
        def load_target(self, index: int) -> GroundTruth:
            return {"boxes": [], "labels": [], "path": str(tmp_path / f"{index}.png")}

    (tmp_path / "3.png").write_bytes(b"")
    assert (Squares().image_size(0), Squares().image_path(0)) == ((20, 30), None)
    assert (Files().image_path(3), Files().image_path(4)) == (tmp_path / "3.png", None)


def test_a_float_image_is_refused() -> None:
    class Bad(Squares):
        def load_image(self, index: int) -> NDArray[np.uint8]:
            return np.zeros((20, 30, 3))  # type: ignore[return-value]

    with pytest.raises(DatasetError, match=r"Bad\[0\] is float64 \(20, 30, 3\): load_image must return uint8"):
        Bad()[0]


def test_fixed_classes_must_agree_with_the_run() -> None:
    Squares().use_class_names(["red", "white"])
    Squares().use_class_names(["red", "white", "blue"])
    with pytest.raises(DatasetError, match=r"Squares has the classes \['red', 'white'\] but the run has \['white'"):
        Squares().use_class_names(["white", "red"])


def test_the_random_state_follows_from_seed_epoch_and_index() -> None:
    data = Squares()
    data.transform = draw
    first = data[SampleIndex(3, epoch=1)][1]["image_id"]
    assert data[SampleIndex(3, epoch=1)][1]["image_id"] == first
    assert data[SampleIndex(3, epoch=2)][1]["image_id"] != first
    assert data[SampleIndex(4, epoch=1)][1]["image_id"] != first
    data.augmentation_seed = 1
    assert data[SampleIndex(3, epoch=1)][1]["image_id"] != first


@pytest.mark.parametrize("persistent", [False, True])
def test_a_foreign_sampler_gets_other_random_numbers_in_every_worker_and_epoch(persistent: bool) -> None:
    data = Squares()
    data.transform = draw
    data[0]  # a generator made before the workers start must not be theirs
    loader = DataLoader(
        data,  # type: ignore[arg-type]
        sampler=RandomSampler(range(12)),  # type: ignore[arg-type]
        batch_size=3,
        num_workers=2,
        persistent_workers=persistent,
        collate_fn=lambda samples: [target["image_id"] for _, target in samples],
    )
    drawn = [number for _ in range(2) for batch in loader for number in batch]
    assert len(set(drawn)) == len(drawn) == 24


def test_seeding_torch_repeats_what_a_foreign_sampler_draws() -> None:
    def numbers() -> list[int]:
        torch.manual_seed(3)
        data = Squares()
        data.transform = draw
        return [data[i][1]["image_id"] for i in range(4)]

    first = numbers()
    assert numbers() == first
    assert len(set(first)) == 4


def test_loading_does_not_disturb_torch_random_state() -> None:
    data = ShapesDataset(2)
    data.transform = draw
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    data[0], data[1]
    assert torch.equal(torch.rand(1), expected)
