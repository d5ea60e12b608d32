"""Constructor arguments as plain data, and back."""

import functools
from pathlib import Path

import pytest
import torch

from detlit.errors import CheckpointError
from detlit.spec import Recorded, as_config, build, init_spec_of, spec_of
from detlit.structures import Preprocessing


class Part(Recorded):
    def __init__(self, size: int = 3, **extra: int) -> None:
        self.size, self.extra = size, extra


class Whole(Recorded):
    def __init__(self, part: Recorded | None, factory: object = None, path: Path | None = None) -> None:
        self.part, self.factory, self.path = part, factory, path


class SpecialPart(Part):
    def __init__(self, double: int) -> None:
        super().__init__(size=2 * double)


def test_defaults_and_extra_keywords_are_recorded() -> None:
    assert init_spec_of(Part()) == {"size": 3}
    assert init_spec_of(Part(1, depth=2)) == {"size": 1, "depth": 2}


def test_the_outermost_constructor_counts() -> None:
    assert init_spec_of(SpecialPart(4)) == {"double": 4}
    assert SpecialPart(4).size == 8


def test_nested_objects_are_rebuilt_alike() -> None:
    whole = Whole(Part(5), functools.partial(torch.optim.SGD, lr=0.1), Path("a/b"))
    again = build(spec_of(whole), allow_custom_code=True)
    assert spec_of(again) == spec_of(whole)
    assert again.part.size == 5
    assert again.path == "a/b"
    assert again.factory.func is torch.optim.SGD
    assert again.factory.keywords == {"lr": 0.1}


def test_a_list_changed_later_does_not_change_the_record() -> None:
    names = ["cat"]
    whole = Whole(None, names)
    names.append("dog")
    assert init_spec_of(whole)["factory"] == ["cat"]


def test_config_form_has_no_marks_and_plain_preprocessing() -> None:
    whole = Whole(None, [torch.optim.AdamW, Preprocessing(size=(64, 96))])
    optimizer, preprocessing = as_config(init_spec_of(whole))["factory"]
    assert optimizer == {"class_path": "torch.optim.adamw.AdamW", "init_args": {}}
    assert preprocessing["size"] == [64, 96]
    assert build(init_spec_of(whole)["factory"][1]) == Preprocessing(size=(64, 96))


def test_what_plain_data_cannot_say_is_refused_only_when_asked_for() -> None:
    whole = Whole(None, object())
    with pytest.raises(CheckpointError, match=r"Whole\.factory holds a builtins\.object"):
        init_spec_of(whole)


@pytest.mark.parametrize(
    ("class_path", "message"),
    [
        ("os.system", "code from outside detlit and torch"),
        ("torch.hub.load", "not a class that detlit builds"),
        ("torch.nn.Linear", "not a class that detlit builds"),
        ("detlit.nothing.Here", "cannot be imported"),
        ("torch.serialization.os.system", "cannot be imported"),
        ("torch.os.system", "cannot be imported"),
    ],
)
def test_untrusted_class_paths_are_refused(class_path: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        build({"class_path": class_path, "init_args": {}})


def test_arguments_of_another_version_are_reported() -> None:
    with pytest.raises(CheckpointError, match="written by another version"):
        build({"class_path": "detlit.structures.Preprocessing", "init_args": {"colour": 1}})
