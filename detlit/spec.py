"""Constructor arguments as plain data: how a checkpoint describes objects without pickling them.

A class that derives from :class:`Recorded` remembers the arguments it was built with. :func:`spec_of` turns them into
the ``{"class_path": ..., "init_args": ...}`` form that YAML configs use too, and :func:`build` makes the object again.
"""

import functools
import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from detlit.errors import CheckpointError
from detlit.structures import Preprocessing

__all__ = ["Recorded", "as_config", "build", "check_trusted", "init_spec_of", "plain", "spec_of"]

_TRUSTED = ("detlit", "torch")


class Recorded:
    """Base of classes that can be rebuilt from plain data: the outermost ``__init__`` notes its arguments."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Wrap ``__init__`` of each subclass so that it notes its arguments before it runs."""
        super().__init_subclass__(**kwargs)
        if "__init__" not in cls.__dict__:
            return
        init = cls.__dict__["__init__"]

        @functools.wraps(init)
        def recording_init(self: Any, *args: Any, **kwargs: Any) -> None:
            if "_init_arguments" not in self.__dict__:
                object.__setattr__(self, "_init_arguments", plain(_arguments(init, self, args, kwargs)))
            init(self, *args, **kwargs)

        cls.__init__ = recording_init  # type: ignore[method-assign]


def _arguments(init: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call by name, defaults included, as the signature of ``init`` binds them."""
    bound = inspect.signature(init).bind(instance, *args, **kwargs)
    bound.apply_defaults()
    arguments: dict[str, Any] = {}
    for name, parameter in list(bound.signature.parameters.items())[1:]:
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            arguments.update(bound.arguments[name])
        else:
            arguments[name] = bound.arguments[name]
    return arguments


class _Foreign:
    """Stands for an argument that plain data cannot express; harmless until somebody asks for the spec."""

    def __init__(self, value: object) -> None:
        self.description = f"{type(value).__module__}.{type(value).__qualname__}"


def plain(value: Any) -> Any:
    """Return ``value`` as plain data, now, before its owner changes it; what cannot be is marked, not refused."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Preprocessing):
        return {"class_path": _path(Preprocessing), "init_args": value.to_dict()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Recorded):
        return {"class_path": _path(type(value)), "init_args": value.__dict__.get("_init_arguments", {})}
    if isinstance(value, functools.partial):
        factory = next((item for item in reversed((value.func, *value.args)) if isinstance(item, type)), value.func)
        return {"class_path": _path(factory), "init_args": plain(value.keywords), "partial": True}
    if isinstance(value, type):
        return {"class_path": _path(value), "init_args": {}, "partial": True}
    return _Foreign(value)


def _path(factory: Any) -> str:
    return f"{factory.__module__}.{factory.__qualname__}"


def _checked(value: Any, owner: str) -> Any:
    if isinstance(value, _Foreign):
        raise CheckpointError(
            f"{owner} holds a {value.description}, which cannot be described as plain data: "
            "derive that class from detlit.spec.Recorded, and use functools.partial in place of a function."
        )
    if isinstance(value, dict):
        return {key: _checked(item, f"{owner}.{key}") for key, item in value.items()}
    if isinstance(value, list):
        return [_checked(item, owner) for item in value]
    return value


def init_spec_of(instance: Recorded) -> dict[str, Any]:
    """Return the constructor arguments of ``instance`` as plain data (numbers, strings, lists, dicts).

    Raises:
        CheckpointError: an argument is an object that plain data cannot describe.
    """
    arguments = instance.__dict__.get("_init_arguments", {})
    checked: dict[str, Any] = _checked(arguments, type(instance).__name__)
    return checked


def spec_of(instance: Recorded) -> dict[str, Any]:
    """Return ``{"class_path": ..., "init_args": ...}`` of ``instance``; see :func:`init_spec_of` for the errors."""
    return {"class_path": _path(type(instance)), "init_args": init_spec_of(instance)}


def build(spec: Any, *, allow_custom_code: bool = False) -> Any:
    """Make the object that :func:`spec_of` described; values that are no specs are returned as they are.

    Args:
        spec: plain data. A dict with ``class_path`` becomes an instance, with ``partial: true`` a factory.
        allow_custom_code: also import classes from outside detlit and torch. A stranger's checkpoint could name any
            importable class, so this is off unless asked for.

    Raises:
        CheckpointError: a class path that is not trusted, does not exist, or does not accept its arguments.
    """
    if isinstance(spec, list):
        return [build(item, allow_custom_code=allow_custom_code) for item in spec]
    if not isinstance(spec, dict):
        return spec
    if "class_path" not in spec:
        return {key: build(item, allow_custom_code=allow_custom_code) for key, item in spec.items()}
    factory = _import_class(spec["class_path"], allow_custom_code)
    arguments = {
        key: build(item, allow_custom_code=allow_custom_code) for key, item in spec.get("init_args", {}).items()
    }
    if spec.get("partial"):
        return functools.partial(factory, **arguments)
    try:
        return factory(**arguments)
    except TypeError as error:
        raise CheckpointError(
            f"{spec['class_path']} cannot be rebuilt from the checkpoint ({error}): it was written by another version."
        ) from error


def as_config(spec: Any) -> Any:
    """Return a spec in the form YAML configs have: without ``partial`` marks, preprocessing as a plain mapping."""
    if isinstance(spec, list):
        return [as_config(item) for item in spec]
    if not isinstance(spec, dict):
        return spec
    if spec.get("class_path") == _path(Preprocessing):
        return as_config(spec["init_args"])
    return {key: as_config(item) for key, item in spec.items() if key != "partial"}


def check_trusted(spec: Any) -> None:
    """Refuse a spec that names code from outside detlit and torch, before anything of it is imported.

    Raises:
        CheckpointError: such a class path, anywhere in the spec.
    """
    if isinstance(spec, list):
        for item in spec:
            check_trusted(item)
    if isinstance(spec, dict):
        class_path = spec.get("class_path", "detlit")
        if not isinstance(class_path, str) or class_path.split(".")[0] not in _TRUSTED:
            raise CheckpointError(
                f"the checkpoint wants to run {class_path}, code from outside detlit and torch: "
                "pass --allow_custom_code if you trust it."
            )
        for item in spec.values():
            check_trusted(item)


def _import_class(class_path: str, allow_custom_code: bool) -> Any:
    module_name, _, name = class_path.rpartition(".")
    if not allow_custom_code:
        check_trusted({"class_path": class_path})
    try:
        factory = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise CheckpointError(f"the checkpoint names {class_path}, which cannot be imported here ({error}).") from error
    known = (Recorded, Preprocessing, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler)
    if not (isinstance(factory, type) and (allow_custom_code or issubclass(factory, known))):
        raise CheckpointError(
            f"the checkpoint names {class_path}, which is not a class that detlit builds: "
            "pass --allow_custom_code if you trust it."
        )
    return factory
