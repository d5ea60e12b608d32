"""``detlit check-data``: what is wrong with a data set, before it costs a training run."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from detlit.cli.check_data_report import write_report
from detlit.cli.configs import find_config, flags, load_config
from detlit.cli.messages import FriendlyErrors
from detlit.data.check import Checkup, Finding, Severity, Split, Track, check_data, collect, fix
from detlit.data.datasets.base import DetectionDataset
from detlit.data.datasets.guess import guess_datasets
from detlit.errors import ConfigurationError, DatasetError
from detlit.structures import Preprocessing

__all__ = ["main"]

_DESCRIPTION = """\
Check a data set: annotations, images, classes, splits. Prints what it finds and writes report.html and report.json.
"detlit check-data FOLDER" is "detlit check-data --root FOLDER".
Exit status: 1 where there are errors, 0 where there are at most warnings and notes."""

_SHOWN_CLASSES, _SHOWN_PLACES = 12, 3


def main(argv: Sequence[str]) -> None:
    """Run ``detlit check-data``.

    Args:
        argv: the command and its options.

    Raises:
        DatasetError: the data have errors.
    """
    argv = _with_root(argv)
    names = {name for _, name, _ in flags(argv)}
    if "root" in names and "config" in names:
        raise ConfigurationError("--root and --config both name the data: give one of them.")
    parser = _parser(with_config="root" not in names)
    arguments = parser.parse_args(_with_data(argv[1:]))
    if "root" not in names and not any(name.split(".")[0] in ("config", "data") for name in names):
        raise ConfigurationError("there are no data to check: give --root FOLDER or --config FILE.")
    datasets: Mapping[str, DetectionDataset]
    class_names: Sequence[str] | None = None
    if arguments.root is not None:
        preprocessing = Preprocessing(size=(arguments.image_size, arguments.image_size))
        datasets = guess_datasets(arguments.root)
    else:
        data = parser.instantiate(arguments).data
        datasets = {split: data.given(split) for split in data.splits}
        preprocessing, class_names = data.preprocessing, arguments.data.class_names
    console = Console(highlight=False)
    splits, problems = collect(datasets)
    targets = [] if arguments.fix is None else _fix_targets(Path(arguments.fix), splits)
    checkup = check_data(splits, class_names, preprocessing, not arguments.no_images, problems, _progress(console))
    _print(checkup, console)
    report = write_report(checkup, Path(arguments.output))
    console.print(f"report: {report}", markup=False, soft_wrap=True)
    _write_fixed(checkup, targets, console)
    _raise_for(checkup)


def _parser(with_config: bool) -> FriendlyErrors:
    """Return the parser; the options of a config's data are only there where one is used, as they import Lightning."""
    parser = FriendlyErrors(prog="detlit check-data", allow_abbrev=False, description=_DESCRIPTION)
    parser.add_argument("--root", type=str | None, default=None, help="Folder of a data set of any format.")
    parser.add_argument(
        "--config", type=str | None, default=None, help="Config of a training run, or its data section."
    )
    parser.add_argument(
        "--output",
        type=str,
        default="data_report",
        help="Folder for report.html and report.json; those of an earlier check are replaced.",
    )
    parser.add_argument(
        "--fix",
        type=str | None,
        default=None,
        help="Write a cleaned copy in COCO's format to this json file, with _SPLIT added to its name where there are "
        "several splits. Nothing else is changed.",
    )
    parser.add_argument("--no-images", action="store_true", help="Do not read the images.")
    if with_config:
        from detlit.data.datamodule import DetectionDataModule

        parser.add_class_arguments(DetectionDataModule, "data", sub_configs=True)
    else:
        parser.add_argument("--image_size", type=int, default=640, help="Side of the network input in pixels.")
    return parser


def _with_root(argv: Sequence[str]) -> list[str]:
    """Return the arguments with ``--root`` before a folder that is given without it."""
    for position, argument in enumerate(argv[1:], 1):
        before = argv[position - 1]
        is_value = before.startswith("-") and "=" not in before and before != "--no-images"
        if not argument.startswith("-") and not is_value:
            return [*argv[:position], "--root", *argv[position:]]
    return list(argv)


def _with_data(argv: Sequence[str]) -> list[str]:
    """Return the arguments with the data section of each config beside it: the rest of a config is not looked at."""
    arguments = list(argv)
    for position, name, value in reversed(list(flags(argv))):
        if name == "config":
            end = position + (1 if argv[position].startswith(("--config=", "-c=")) else 2)
            arguments[position:end] = [f"--config={value}", f"--data={_data_section(find_config(value))}"]
    return arguments


def _data_section(path: Path) -> str:
    """Return the file of a config's data, or the data as json.

    Raises:
        ConfigurationError: no config with data.
    """
    content = load_config(path)
    if not isinstance(content, dict) or not ({"data", "train", "val", "test"} & content.keys()):
        raise ConfigurationError(f"config {path} has no data section: add 'data', or give --root FOLDER.")
    section: Any = content.get("data", content)
    return str(path.parent / section) if isinstance(section, str) else json.dumps(section)


# ------------------------------------------------------------------------------------------------------ terminal
def _progress(console: Console) -> Track:
    """Return what shows a bar while images are read, on a terminal only."""
    return lambda scans, total: track(
        scans, "reading images", total, console=console, transient=True, disable=not console.is_terminal
    )


_COLORS: dict[Severity, str] = {"error": "bold red", "warning": "yellow", "note": "blue"}


def _print(checkup: Checkup, console: Console) -> None:
    """Print counts, findings and suggested settings."""
    console.print(_counts(checkup))
    for finding in checkup.findings:
        line = Text.assemble((f"{finding.severity:8}", _COLORS[finding.severity]), _sentence(finding))
        console.print(line, soft_wrap=True)
        for place in finding.places[:_SHOWN_PLACES]:
            console.print(f"           {place}", markup=False, soft_wrap=True)
        if len(finding.places) > _SHOWN_PLACES:
            console.print(f"           and {len(finding.places) - _SHOWN_PLACES} more", soft_wrap=True)
    suggestion = checkup.statistics.suggestion
    console.print(f"suggested: data.image_size {suggestion.image_size}, {suggestion.reasons[0]}", soft_wrap=True)
    console.print(f"           data.batch_size {suggestion.batch_size}, {suggestion.reasons[1]}", soft_wrap=True)


def _sentence(finding: Finding) -> str:
    remark = f" ({finding.remark})" if finding.remark else ""
    return f" {finding.title}{remark}: {finding.kind.cure}"


def _counts(checkup: Checkup) -> Table:
    """Return images and objects of each split, and the objects of the most frequent classes."""
    records, statistics = checkup.records, checkup.statistics
    table = Table(title=f"{records.num_images} images, {len(records.labels)} objects", title_justify="left")
    table.add_column("", no_wrap=True)
    for split in records.splits:
        table.add_column(split.name, justify="right", no_wrap=True)
    table.add_row("images", *(f"{count}" for count in statistics.images))
    table.add_row("without objects", *(f"{count}" for count in statistics.empty), end_section=True)
    frequent = sorted(range(len(records.class_names)), key=lambda label: -statistics.objects[:, label].sum())
    for label in frequent[:_SHOWN_CLASSES]:
        table.add_row(records.class_names[label], *(f"{count}" for count in statistics.objects[:, label]))
    rest = frequent[_SHOWN_CLASSES:]
    if rest:
        table.add_row(f"{len(rest)} other classes", *(f"{count}" for count in statistics.objects[:, rest].sum(axis=1)))
    return table


def _fix_targets(path: Path, splits: Sequence[Split]) -> list[Path]:
    """Return the file of each split's cleaned copy.

    Raises:
        ConfigurationError: one of them is there already.
    """
    names = [path.name] if len(splits) == 1 else [f"{path.stem}_{split.name}{path.suffix}" for split in splits]
    targets = [path.with_name(name) for name in names]
    for target in targets:
        if target.exists():
            raise ConfigurationError(f"there is a file {target} already: choose another name for --fix.")
    return targets


def _write_fixed(checkup: Checkup, targets: Sequence[Path], console: Console) -> None:
    """Write cleaned copies, and print what they leave out, and what is left to correct."""
    for number, target in enumerate(targets):
        fixed = fix(checkup, number)
        target.parent.mkdir(parents=True, exist_ok=True)
        fixed.write(target)
        console.print(f"cleaned copy: {target}", markup=False, soft_wrap=True)
        for line in fixed.changes or ("nothing was left out",):
            console.print(f"           {line}", markup=False, soft_wrap=True)
        for line in fixed.left:
            console.print(f"           still there: {line}", markup=False, soft_wrap=True)


def _raise_for(checkup: Checkup) -> None:
    errors = checkup.of("error")
    if errors:
        kinds = f"{len(errors)} kind{'s' * (len(errors) > 1)} of errors"
        raise DatasetError(f"the data have {kinds}: correct them before training.")
