"""Completion in a shell: what the scripts know against the parsers, and what each shell offers for a line."""

import shutil
import subprocess
from pathlib import Path
from typing import get_args

import pytest
from jsonargparse import ArgumentParser
from lightning.fabric.plugins.precision.precision import _PRECISION_INPUT_STR
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.strategies import StrategyRegistry

from detlit.cli import COMMANDS, TRAINER_COMMANDS, completion, main
from detlit.cli.completion import Table, completion_table
from detlit.cli.completion_scripts import SCRIPTS
from detlit.cli.parsers import command_parsers
from detlit.errors import DetlitError
from tests.cli.test_entry_point import loaded_after

SHELLS = [
    pytest.param(shell, marks=pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not installed"))
    for shell in SCRIPTS
]

BASH = """
source "$1"; shift
compopt() { echo "compopt $*" >&2; }
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_detlit
printf '%s\\n' "${COMPREPLY[@]}"
"""
ZSH = """
compdef() { }
source "$1"; shift
compadd() { while [[ $1 != -- ]] { shift }; shift; print -rl -- "$@" }
compset() { }
_describe() { print -rl -- ${${(P)2}%%:*} }
_files() { print -rl -- *(N) }
words=("$@") CURRENT=$#
_detlit
"""
FISH = """
source $argv[1]
complete -C (string join ' ' -- $argv[2..]) | string replace -r '\\t.*' ''
"""

LINES = {
    "f": {"fit"},
    "fit --tr": {"--trainer."},
    "fit --em": {"--ema", "--ema."},
    "fit --ema n": {"null"},
    "fit --trainer.max": {"--trainer.max_epochs", "--trainer.max_steps", "--trainer.max_time"},
    "fit --data.val.im": {"--data.val.image", "--data.val.image_id", "--data.val.image_size", "--data.val.images"},
    "fit --config quick": {"quickstart", "quickstart_qat"},
    "fit --config=quick": {"quickstart", "quickstart_qat"},
    "check-data --config sha": {"shapes"},
    "export --format ": {"onnx", "openvino", "torch_export", "torchscript"},
    "export --half ": {"true", "false"},
    "export --half --op": {"--opset"},
    "fit --data ya": set(),
    "fit --data yo": {"yolo"},
    "fit --model.detector yolo": {"yolo_nas_n", "yolo_nas_s", "yolo_nas_m", "yolo_nas_l"},
    "fit --trainer.callbacks+=Clo": {"CloseMosaic"},
    "fit --data.train V": {"VocDataset"},
    "fit --trainer.precision 16": {"16-mixed", "16-true"},
    "fit --trainer.max_epochs ": set(),
    "test --ckpt_path ": {"last", "best", "null", "my run.ckpt"},
    "validate --per_class --rep": {"--report"},
    "completion ": {"bash", "zsh", "fish"},
    "strip ": {"my run.ckpt"},
    "nosuch ": set(),
    "models ": {"--help", "--image_size", "--num_classes", "-h"},
}


@pytest.fixture(scope="module")
def table() -> Table:
    return completion_table()


@pytest.fixture(scope="module")
def scripts(table: Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a script for each shell."""
    folder = tmp_path_factory.mktemp("scripts")
    for shell, script in SCRIPTS.items():
        (folder / shell).write_text(script(*completion._grouped(table)))
    return folder


def run(shell: str, program: str, *arguments: object, folder: Path | None = None) -> list[str]:
    command = {
        "bash": ["bash", "--norc", "-c", program, "bash"],
        "zsh": ["zsh", "-f", "-c", program, "zsh"],
        "fish": ["fish", "--no-config", "-c", program],
    }[shell]
    done = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, check=False, cwd=folder)
    assert "rror" not in done.stderr
    return [line for line in done.stdout.splitlines() if line]


def words_of(shell: str, line: str) -> list[str]:
    """Return a line as a shell's completion gets it; bash makes words of ``=``."""
    words = ["detlit", *line.split(" ")]
    return " ".join(words).replace("=", " = ").split(" ") if shell == "bash" else words


@pytest.mark.parametrize("shell", SHELLS)
def test_every_option_of_every_command_is_known(shell: str, scripts: Path) -> None:
    ask = {"bash": "source $1; _detlit_options $2; echo $flags", "fish": "source $argv[1]; __detlit_options $argv[2]"}
    ask["zsh"] = f"compdef() {{ }}; {ask['bash']}"
    for command, parsers in command_parsers().items():
        known = set(" ".join(run(shell, ask[shell], scripts / shell, command)).split())
        given = {name for parser in parsers for action in parser._actions for name in action.option_strings}
        sections = {"--model", "--trainer"} if command in TRAINER_COMMANDS else set()  # files of a whole section
        assert {name for name in given if name.startswith("-")} - known == sections, command
        assert "--help" in known


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("line", LINES)
def test_a_line_is_completed(shell: str, line: str, scripts: Path, tmp_path: Path) -> None:
    (tmp_path / "my run.ckpt").touch()
    program = {"bash": BASH, "zsh": ZSH, "fish": FISH}[shell]
    offered = run(shell, program, scripts / shell, *words_of(shell, line), folder=tmp_path)
    if shell == "fish":  # the whole word is replaced there
        offered = [word.rpartition("=")[2] for word in offered]
    expected = LINES[line]
    if shell == "zsh":  # which itself leaves out what does not begin as the word does
        offered = [word for word in offered if word.startswith(line.replace("=", " ").rpartition(" ")[2])]
    if shell == "bash" and line == "strip ":  # where readline offers files if there is nothing else
        expected = set()
    assert len(offered) == len(set(offered))
    assert set(offered) == expected


@pytest.mark.parametrize("shell", SHELLS)
def test_commands_come_first(shell: str, scripts: Path) -> None:
    program = {"bash": BASH, "zsh": ZSH, "fish": FISH}[shell]
    assert set(COMMANDS) <= set(run(shell, program, scripts / shell, "detlit", ""))


def test_nested_options_are_those_of_the_classes(table: Table) -> None:
    options = set(table.options["fit"])
    assert {
        "--ema.decay",
        "--data.train.annotations",
        "--model.optimizer.lr",
        "--model.detector.lean_memory",
    } <= options
    assert "--model.detector.num_classes" not in options  # it comes from the data
    assert "--model.optimizer.params" not in options  # the module gives them
    assert not [name for name in options if name.startswith("--trainer.logger.") and name != "--trainer.logger.help"]


def test_scripts_are_small(table: Table) -> None:
    for script in SCRIPTS.values():
        assert len(script(*completion._grouped(table))) < 60_000


def test_words_that_no_parser_spells_out_are_understood(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(completion.PRECISIONS) - {"auto"} <= set(get_args(_PRECISION_INPUT_STR))
    assert set(completion.STRATEGIES) - {"auto"} <= set(StrategyRegistry.available_strategies())
    assert set(completion.ACCELERATORS) - {"auto", "gpu"} <= set(AcceleratorRegistry.available_accelerators())
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    for word in completion.PRINT_CONFIG:
        with pytest.raises(SystemExit, match="0"):
            parser.parse_args([f"--print_config={word}"])
    capsys.readouterr()


@pytest.mark.parametrize("word", ["skip", "fail"])
def test_what_to_do_about_broken_images_is_understood(word: str, table: Table, tmp_path: Path) -> None:
    from detlit.cli.predict import predict

    assert word in table.values["predict", "--broken"].words
    with pytest.raises(DetlitError) as error:
        predict(str(tmp_path / "no.ckpt"), str(tmp_path / "no.jpg"), broken=word)
    assert "is unknown" not in str(error.value)


@pytest.mark.parametrize("arguments", [["completion", "bsh"], ["completion"], ["completion", "--help"]])
def test_mistakes_are_one_line_and_quick(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert "zsh" in captured.err + captured.out or "shell" in captured.err
    program = f"from detlit.cli import main\ntry: main({arguments})\nexcept SystemExit: pass"
    assert "torch" not in loaded_after(program)


def test_the_command_prints_the_script(scripts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "zsh"]) == 0
    assert capsys.readouterr().out == (scripts / "zsh").read_text()
