"""Class lists that do not fit together."""

from pathlib import Path

import pytest

from tests.data.check.scenes import Scene, found


def rename(scene: Scene, split: str, names: list[str]) -> None:
    for row, name in zip(scene.content[split]["categories"], names, strict=True):
        row["name"] = name


@pytest.mark.parametrize(
    ("names", "faults"),
    [
        (["cat", "dog", "owl"], {}),
        (["cat", "dog", "Owl"], {"class-of-one-split": ["'Owl' in val (is it 'owl'?)"]}),
        (["cat", "dog", "tree"], {"class-of-one-split": ["'tree' in val"]}),
        (["cat", "owl", "dog"], {"class-order": ["val: 2 is 'owl', in train 'dog'"]}),
    ],
    ids=str,
)
def test_the_classes_of_a_later_split(tmp_path: Path, names: list[str], faults: dict[str, list[str]]) -> None:
    scene = Scene(tmp_path)
    rename(scene, "val", names)
    assert found(scene.check(read_images=False)) == faults


def test_shifted_ids_are_another_order(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    for row in [*scene.content["val"]["categories"]]:
        row["id"] -= 1
    for row in scene.content["val"]["annotations"]:
        row["category_id"] -= 1
    assert found(scene.check(read_images=False)) == {"class-order": ["val: 0 is 'cat', in train nothing"]}


def test_a_class_that_is_given_need_not_be_declared_by_the_first_split(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    rename(scene, "val", ["cat", "dog", "tree"])
    faults = found(scene.check(read_images=False, class_names=["cat", "dog", "owl", "tree"]))
    assert list(faults) == ["untrained-class"]


def test_unused_untrained_and_similar_classes(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    for content in scene.content.values():
        content["categories"] += [{"id": 4, "name": "yak"}, {"id": 5, "name": "Dog "}]
    scene.content["val"]["annotations"][0]["category_id"] = 4
    assert found(scene.check(read_images=False)) == {
        "similar-classes": ["'dog' and 'Dog '"],
        "unused-class": ["Dog "],
        "untrained-class": ["yak (1 in other splits)"],
    }
