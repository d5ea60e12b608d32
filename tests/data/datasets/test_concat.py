"""Several data sets as one."""

from typing import Any

import numpy as np
import pytest

from detlit.data import ConcatDataset, DetectionDataModule, GroundTruth, ListDataset, ShapesDataset
from detlit.errors import AnnotationError, ConfigurationError, DatasetError
from tests.data.conftest import CocoWriter
from tests.data.datasets.test_base import Squares
from tests.data.datasets.test_coco import dataset
from tests.data.datasets.test_yolo import photo


def part(*labels: str, names: tuple[str, ...], **arguments: Any) -> ListDataset:
    return ListDataset([(photo(), [[1, 2, 3, 4]], [label]) for label in labels], names, **arguments)


def labels(data: ConcatDataset) -> list[str]:
    return [data.class_names[int(data[i][1]["labels"][0])] for i in range(len(data))]


def test_labels_are_joined_by_name() -> None:
    parts = [part("cat", "dog", names=("cat", "dog")), part("dog", "owl", names=("owl", "dog"))]
    data = ConcatDataset(parts)
    assert data.class_names == ("cat", "dog", "owl")
    assert labels(data) == ["cat", "dog", "dog", "owl"]
    assert [data[i][1]["dataset_index"] for i in range(4)] == [0, 1, 2, 3]
    assert [data[i][1]["image_id"] for i in range(4)] == [0, 1, 0, 1]
    assert parts[1].class_names == ("owl", "dog")  # the parts given are not changed
    data.use_class_names(["owl", "dog", "cat"])
    assert [data[i][1]["labels"].tolist() for i in range(4)] == [[2], [1], [1], [0]]
    assert labels(ConcatDataset(parts, class_names=["x", "owl", "dog", "cat"])) == ["cat", "dog", "dog", "owl"]


def test_parts_may_rename_their_classes() -> None:
    cars = part("car", "bus", names=("bus", "car"), classes={"car": "vehicle", "bus": "vehicle"})
    data = ConcatDataset([part("vehicle", names=("vehicle",)), cars])
    assert data.class_names == ("vehicle",)
    assert labels(data) == ["vehicle"] * 3


def test_any_data_set_may_be_a_part_even_this_one(write_coco: CocoWriter) -> None:
    coco = dataset(write_coco())
    data = ConcatDataset([Squares(), ConcatDataset([coco, ShapesDataset(2)])])
    assert data.class_names[:5] == ("red", "white", "cat", "owl", "dog")
    assert len(data) == 12 + 3 + 2
    assert data[14][1]["labels"].tolist() == [4, 2]
    assert data[14][1]["iscrowd"].tolist() == [True, False]
    assert data[14][1]["image_id"] == 20
    assert (data.image_size(14), data.image_path(14)) == ((30, 60), coco.image_path(2))
    assert (data.image_size(0), data.image_path(0)) == ((20, 30), None)
    np.testing.assert_array_equal(data[16][0], ShapesDataset(2)[1][0])
    assert data.locate(13) == (data.datasets[1], 1)
    with pytest.raises(IndexError, match="index 17 is outside a data set of 17 images"):
        data[17]


def test_the_data_module_places_the_parts(write_coco: CocoWriter) -> None:
    from detlit.data import CocoDataset

    root = str(write_coco())
    train = ConcatDataset([CocoDataset("train.json", "images/train"), CocoDataset("train.json", "images/train")])
    data = DetectionDataModule(train=train, root=root, image_size=64, batch_size=2, num_workers=0)
    assert data.class_names == ("cat", "owl", "dog")
    chosen = data.dataset("train")
    assert chosen is not None
    assert len(chosen) == 6
    assert (train.root, train.datasets[0].root) == (None, None)  # type: ignore[attr-defined]


def test_what_cannot_be_joined_is_named() -> None:
    with pytest.raises(ConfigurationError, match="datasets is empty"):
        ConcatDataset([])
    with pytest.raises(DatasetError, match="the list of samples annotates class 'dog', but the classes of this run"):
        ConcatDataset([part("dog", names=("dog",))], class_names=["cat"]).setup()
    with pytest.raises(DatasetError, match=r"Squares has the class 'white', but the classes of this run are red"):
        ConcatDataset([Squares()], class_names=["red"]).setup()

    class Wrong(Squares):
        def load_target(self, index: int) -> GroundTruth:
            return {"boxes": [[0, 0, 1, 1]], "labels": [index - 1]}

    for index, label in ((0, -1), (3, 2)):
        with pytest.raises(AnnotationError, match=f"part 0 has label {label}, but 2 classes"):
            ConcatDataset([Wrong()])[index]


def test_an_unused_class_of_a_part_need_not_be_in_the_run() -> None:
    data = ConcatDataset([part("cat", names=("unused", "cat"))], class_names=["cat"])
    assert labels(data) == ["cat"]
