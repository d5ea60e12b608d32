"""``detlit schema``: a JSON schema with which editors complete and check configs."""

import inspect
import json
import re
from argparse import SUPPRESS, Action
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from detlit.cli import TRAINER_COMMANDS
from detlit.cli.configs import config_folder
from detlit.cli.messages import FriendlyErrors
from detlit.errors import ConfigurationError

__all__ = ["config_schema", "main", "schema"]

Schema = dict[str, Any]

_SCALARS = {bool: "boolean", int: "integer", float: "number", str: "string", Path: "string", NoneType: "null"}

_ASIDE = ("--help", "--config", "--print_config")
"""Options that are no keys of a config."""

_FILE: Schema = {"patternProperties": {r"^\$schema$": {"type": "string"}}, "additionalProperties": False}
"""What may be a file of its own: no keys but those named and one for editors, a pattern so that none suggests it."""


def main(argv: Sequence[str]) -> None:
    """Run ``detlit schema``.

    Args:
        argv: the command and its options.
    """
    parser = FriendlyErrors(
        prog="detlit schema", allow_abbrev=False, description="Print a JSON schema of the configs, for editors."
    )
    parser.add_function_arguments(schema)
    schema(**parser.parse_args(list(argv[1:])).as_dict())


def schema(output: str | None = None) -> None:
    """Print a JSON schema of the configs.

    Args:
        output: File to write instead, such as detlit.schema.json; the first line of a config then names it:
            '# yaml-language-server: $schema=detlit.schema.json'.
    """
    if output is not None and not Path(output).absolute().parent.is_dir():
        raise ConfigurationError(f"there is no folder {Path(output).parent}: make it, or correct --output {output}.")
    text = json.dumps(config_schema(), indent=1)
    if output is None:
        print(text)
    else:
        Path(output).write_text(f"{text}\n", encoding="utf-8")
        print(f"written to {output}")


def config_schema() -> Schema:
    """Return the JSON schema (draft 7, which editors know best) of a run's config, and of its parts in own files.

    A file with a ``class_path`` is a detector, one with keys of ``data`` is that section, everything else is a run.
    """
    from detlit.cli.parsers import command_parsers

    parsers = command_parsers()
    builder = _Builder()
    run = builder.section(action for name in TRAINER_COMMANDS for action in parsers[name][0]._actions)
    builder.drop_linked()
    keys = run["properties"]
    data = {**keys["data"], "type": "object"}
    some_of_data = [{"required": [key]} for key in data["properties"] if key not in keys]
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "detlit config",
        "type": "object",
        "if": {"required": ["class_path"]},
        "then": keys["model"]["properties"]["detector"],
        "else": {"if": {"anyOf": some_of_data}, "then": data, "else": run},
        "definitions": builder.definitions,
    }


class _Builder:
    """Builds schemas; those of classes are definitions, which others refer to."""

    def __init__(self) -> None:
        self.definitions: dict[str, Schema] = {}
        self._names: dict[tuple[type, int, str], str] = {}

    def section(self, actions: Iterable[Action], prefix: str = "--") -> Schema:
        """Return the schema of what options set: ``--trainer.max_epochs`` is ``trainer: {max_epochs: ...}``.

        Args:
            actions: the options.
            prefix: what their names begin with.
        """
        closed = _FILE if prefix == "--" else {"additionalProperties": False}
        root: Schema = {"type": "object", "properties": {}, **closed}
        for action in actions:
            for option in action.option_strings:
                appends = option.endswith("+") and prefix != "--"
                if option.startswith(prefix) and not appends and not option.endswith(".help") and option not in _ASIDE:
                    *outer, key = option.removeprefix(prefix).split(".")
                    node = root
                    for name in outer:
                        node = node["properties"][name]
                    if type(action).__name__ == "_ActionConfigLoad":
                        node["properties"].setdefault(key, {"type": ["object", "string"], "properties": {}, **_FILE})
                    else:
                        node["properties"][key] = {**self._option(action, option)}
        return root

    def drop_linked(self) -> None:
        """Leave out what the detector learns from the data, which a config must not set."""
        from detlit.cli.lightning import LINKS
        from detlit.models import Detector

        for target in LINKS.values():
            owner, _, key = target.rpartition(".init_args.")
            if owner == "model.detector":
                del self.definitions[self._names[Detector, 0, "arguments"]]["properties"][key]

    def _option(self, action: Action, option: str) -> Schema:
        """Return the schema of an option's value, with what help says."""
        described = {"type": "boolean"} if action.nargs == 0 else self.value(getattr(action, "_typehint", action.type))
        if "$ref" in described:  # draft 7 ignores what stands beside a reference
            described = {"allOf": [described]}
        if action.help not in (None, SUPPRESS):
            described = {**described, "description": " ".join(str(action.help).replace("%%", "%").split())}
        if _is_json(action.default) and not option.endswith("+"):
            described = {**described, "default": action.default}
        return described

    def value(self, typehint: Any) -> Schema:
        """Return the schema of the values of a type; of a type that YAML cannot say, everything."""
        from detlit.cli.parsers import classes_in, leading_arguments

        origin, parts = get_origin(typehint), get_args(typehint)
        if typehint in _SCALARS:
            return {"type": _SCALARS[typehint]}
        if origin is Literal:
            return {"enum": list(parts)}
        if origin in (Union, UnionType):
            return _union([self.value(part) for part in parts])
        if origin is tuple and parts[-1] is not Ellipsis:
            return {"type": "array", "items": [*map(self.value, parts)], "minItems": len(parts), "maxItems": len(parts)}
        if origin is Callable:
            found = classes_in(typehint)
            classes = [cls for cls in found if not any(issubclass(cls, other) and cls is not other for other in found)]
            return _union([self.instance(cls, leading_arguments(typehint)) for cls in classes] or [{"type": "string"}])
        if inspect.isclass(origin) and issubclass(origin, Mapping):
            return {"type": "object", "additionalProperties": self.value(parts[1])}
        if inspect.isclass(origin) and issubclass(origin, Iterable):
            return {"type": "array", "items": self.value(parts[0])}
        if inspect.isclass(typehint) and issubclass(typehint, Enum):
            return {"enum": [*typehint.__members__]}
        if origin is type:
            return {"type": "string"}
        return self.instance(typehint) if origin is None and classes_in(typehint) else {}

    def instance(self, base: type, skip: int = 0) -> Schema:
        """Return a reference to the schema of instances of a class: a name, a file, or a class path and arguments.

        Args:
            base: the class.
            skip: the first so many arguments are not set by a config.
        """
        return self._defined(base, skip, "instance", self._instance)

    def _instance(self, base: type, skip: int) -> Schema:
        from detlit.cli.parsers import class_names, concrete

        classes = concrete(base)
        bare = [cls.__name__ for cls in classes]
        names = [class_names(cls)[bare.count(cls.__name__) > 1 :] for cls in classes]
        shortest = {"enum": [each[0] for each in names]}
        others = "|".join(re.escape(name) for each in names for name in each)
        class_path = {"anyOf": [shortest, {"type": "string", "pattern": rf"^({others})$|^(?!detlit\.).*\."}]}
        shipped = (
            sorted(path.stem for path in config_folder().glob("model/*.yaml")) if base.__name__ == "Detector" else []
        )
        file = {"type": "string", "pattern": r"\."}
        extra: Schema = {"class_path": True, "dict_kwargs": {"type": "object"}}
        rules = [{"if": {"type": "string"}, "then": {"anyOf": [{"enum": [*shipped, *shortest["enum"]]}, file]}}]
        arguments = [self._defined(cls, skip, "arguments", self._arguments) for cls in classes]
        for each, reference in zip(names, arguments, strict=True):
            chosen = {"required": ["class_path"], "properties": {"class_path": {"enum": each}}}
            then = {"properties": {**extra, "init_args": reference}, **_FILE}
            rules.append({"if": {"type": "object", **chosen}, "then": then})
        if inside := self._any_of(arguments):
            properties = {**inside, **extra, "init_args": {"type": "object"}}
            unsaid = {"type": "object", "not": {"required": ["class_path"]}}
            rules.append({"if": unsaid, "then": {"properties": properties, **_FILE}})
        return {
            "type": ["object", "string"],
            "description": _summary(base),
            "properties": {"class_path": class_path, "init_args": {"type": "object"}},
            "allOf": rules,
        }

    def _any_of(self, arguments: list[Schema]) -> Schema:
        """Return the arguments that any of several classes has, for where the class was said before.

        Args:
            arguments: references to those of each class; of a class that is being described yet they are unknown.
        """
        known = [self.definitions[reference["$ref"].rpartition("/")[2]].get("properties") for reference in arguments]
        if None in known:
            return {}
        either: dict[str, list[Schema]] = {}
        for properties in known:
            for key, described in (properties or {}).items():
                either.setdefault(key, []).append(described)
        return {key: _either(schemas) for key, schemas in either.items()}

    def _arguments(self, cls: type, skip: int) -> Schema:
        from detlit.cli.parsers import arguments_of

        try:
            section = self.section(arguments_of(cls, skip), "--arguments.")
        except ValueError:
            return {"type": "object"}
        return {**section, "description": _summary(cls)}

    def _defined(self, cls: type, skip: int, kind: str, make: Callable[[type, int], Schema]) -> Schema:
        """Return a reference to a definition, made when it is first asked for, so that classes may hold each other."""
        key = (cls, skip, kind)
        if key not in self._names:
            name = cls.__name__ if kind == "instance" else f"{cls.__name__}.{kind}"
            if name in self._names.values():
                name = f"{cls.__module__}.{name}.{skip}"
            self._names[key] = name
            self.definitions[name] = {}
            self.definitions[name] = make(cls, skip)
        return {"$ref": f"#/definitions/{self._names[key]}"}


def _union(schemas: list[Schema]) -> Schema:
    """Return the schema of values of any of several types.

    Lists, mappings and strings meet only the schemas of their kind, so that mistakes deep inside are named there, not
    as "none of these". Words and plain values are simply listed, so that editors offer them.
    """
    if {} in schemas:
        return {}
    if all(schema.keys() <= {"type", "enum"} for schema in schemas):
        return _scalars(schemas)
    kinds = list(dict.fromkeys(kind for schema in schemas for kind in _kinds(schema)))
    rules = []
    for kind in kinds:
        fitting = [schema for schema in schemas if kind in _kinds(schema)]
        if any(schema.keys() - {"type"} for schema in fitting):
            rules.append({"if": {"type": kind}, "then": _either(fitting)})
    return {"type": kinds, "allOf": rules}


def _scalars(schemas: list[Schema]) -> Schema:
    """Return the schema of words, numbers and the like."""
    words = [word for schema in schemas for word in schema.get("enum", ())]
    types = list(dict.fromkeys(schema["type"] for schema in schemas if "type" in schema))
    if words and "boolean" in types:
        words += [True, False]
    if words and "null" in types:
        words.append(None)
    types = [name for name in types if not words or name not in ("boolean", "null")]
    different = {(type(word), word): word for word in words}  # True is 1
    listed, open_ended = {"enum": [*different.values()]}, {"type": types[0] if len(types) == 1 else types}
    if words and types:
        return {"anyOf": [listed, open_ended]}
    return listed if words else open_ended


def _either(schemas: list[Schema]) -> Schema:
    different = [schema for position, schema in enumerate(schemas) if schema not in schemas[:position]]
    return different[0] if len(different) == 1 else {"anyOf": different}


def _kinds(schema: Schema) -> list[str]:
    """Return the JSON types that a schema takes."""
    if "$ref" in schema:
        return ["object", "string"]
    if "anyOf" in schema:
        return list(dict.fromkeys(kind for each in schema["anyOf"] for kind in _kinds(each)))
    if "enum" in schema:
        return list(dict.fromkeys(_SCALARS[type(value)] for value in schema["enum"]))
    kinds = schema["type"]
    return kinds if isinstance(kinds, list) else [kinds]


def _is_json(value: Any) -> bool:
    """Tell whether a default can be shown; that there is none need not be."""
    try:
        json.dumps(value)
    except TypeError:
        return False
    return value is not None and value is not SUPPRESS


def _summary(cls: type) -> str:
    """Return the first sentence of a class's docstring."""
    return " ".join((inspect.getdoc(cls) or cls.__name__).split("\n\n")[0].split())
