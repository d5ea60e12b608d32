"""One-line errors with a suggestion, in place of pages of usage and tracebacks."""

import difflib
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Any, NoReturn

from jsonargparse import ArgumentParser

from detlit.cli.configs import config_folder

__all__ = ["FriendlyErrors", "one_line"]


def one_line(error: BaseException) -> str:
    """Return the sentence of an error; for one raised in a data worker, without the worker's traceback."""
    text = str(error).strip() or type(error).__name__
    if text.startswith("Caught ") and "Original Traceback" in text:
        last = [line for line in text.splitlines() if line.strip()][-1]
        text = re.sub(r"^[\w.]+: ", "", last)
    return " ".join(text.split())


class FriendlyErrors(ArgumentParser):
    """A parser whose errors are one line, a suggestion and where to read on, with exit status 2."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the error and leave."""
        if not self.exit_on_error:
            super().error(message, ex)
        parser = getattr(ex, "subcommand_parser", None) or self
        sentence, suggestions = _explained(self, parser.prog.split()[-1], message)
        print(f"detlit: error: {sentence}", file=sys.stderr)
        for suggestion in suggestions:
            print(f"  did you mean: {suggestion}?", file=sys.stderr)
        print(f"  see: {parser.prog.replace(' [options]', '')} --help", file=sys.stderr)
        raise SystemExit(2)


def _explained(parser: ArgumentParser, command: str, message: str) -> tuple[str, list[str]]:
    """Return a parser's message in one sentence, without the lists of types it tried, and what may have been meant."""
    shipped = [file.stem for file in sorted((config_folder() / "model").glob("*.yaml"))]
    keys = sorted({action.dest for known in _parsers(parser) for action in known._actions if action.dest})
    keys = [key for key in keys if not key.endswith(".help")]
    text = re.sub(r"Does not validate against any of the Union subtypes\s+Subtypes: .*?\s+Errors:", "", message)
    text = " ".join(re.sub(r"Given value type: .*", "", text).split())
    if "fit.model.detector" in text and "required" in text:
        return f"there is no detector: set model.detector to one of {', '.join(shipped)}, or to a config of yours.", []
    if match := re.search(r'"model\.detector": - Expected a path but (\S+) ', text):
        sentence = f"model.detector={match[1]} is neither a config file, nor a class, nor one of {', '.join(shipped)}."
        return sentence, _nearest(match[1], shipped)
    if "'linked_targets'" in text:
        names = ", ".join(shipped)
        return f"model.detector names a function, which no config can call: name a class, or one of {names}.", []
    if match := re.search(r"nrecognized arguments?: --?([\w.+]+)", text):
        return text, [f"--{key}" for key in _nearest(match[1].rstrip("+"), keys)]
    if match := re.search(r"nrecognized arguments?: (\S+)", text):
        return text, [f"--config {match[1]}"] if command in ("fit", "validate", "test") else []
    if match := re.search(r"class_path '([\w.]+)'[^']*Option '([\w.]+)' is not accepted", text):
        return text, _nearest(match[2], _parameters(match[1]))
    if match := re.search(r'"([\w.]+)":.*Option \'([\w.]+)\' is not accepted.*class_path=\'([\w.]+)\'', text):
        return f"{match[1]}: {match[3]} has no argument {match[2]!r}.", _nearest(match[2], _parameters(match[3]))
    if match := re.search(r"does not accept (?:nested key|option) '([\w.]+)'", text):
        return text, _nearest(match[1], keys)
    if match := re.search(r'"([\w.]+)":.*Expected a path but (\S+) .*import path string: \2', text):
        return f"{match[1]}: {match[2]} is neither a class nor a file.", _nearest(match[2], _class_names())
    if match := re.search(r"(?:import path string: |class_path ')([\w.]+)", text):
        return text, _nearest(match[1].rpartition(".")[2], _class_names())
    return text, []


def _parsers(parser: ArgumentParser) -> Iterator[ArgumentParser]:
    yield parser
    subcommands = getattr(parser, "_subcommands_action", None)  # private: an error must not end in another one
    yield from getattr(subcommands, "_name_parser_map", {}).values()


def _nearest(name: str, known: Iterable[str]) -> list[str]:
    return difflib.get_close_matches(name, list(known), 1, 0.6)


def _parameters(class_path: str) -> list[str]:
    module, _, name = class_path.rpartition(".")
    try:
        factory: Any = getattr(import_module(module), name)
        return list(inspect.signature(factory).parameters)
    except (ImportError, AttributeError, ValueError, TypeError):
        return []


def _class_names() -> list[str]:
    """Return the names of the classes configs usually name: detlit's, torch's optimizers and Lightning's callbacks."""
    import detlit

    torch, callbacks = sys.modules.get("torch"), sys.modules.get("lightning.pytorch.callbacks")
    names = [*detlit.__all__]
    if torch is not None:
        names += [*getattr(torch.optim, "__all__", dir(torch.optim)), *torch.optim.lr_scheduler.__all__]
    return names + list(getattr(callbacks, "__all__", []))
