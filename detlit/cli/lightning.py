"""``detlit fit``, ``validate`` and ``test``: LightningCLI with the defaults a detector needs."""

import json
import shlex
import sys
from collections.abc import Callable, Sequence
from traceback import walk_tb
from typing import Any

import torch
import yaml
from jsonargparse import get_loader, set_loader
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ModelCheckpoint, ModelSummary, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from detlit import callbacks
from detlit.callbacks import EMA, Checkpoint, EvaluationReport, MonitorGuard, PlotMetrics
from detlit.callbacks.defaults import always_on
from detlit.checkpoint_io import AtomicCheckpointIO
from detlit.cli.configs import find_key, flags, with_shipped_configs, with_shipped_parts
from detlit.cli.console import EpochProgress, ModelSize, plain_words
from detlit.cli.messages import FriendlyErrors
from detlit.cli.run_folder import RunFolder, without_empty_folder
from detlit.cli.runs import with_named_checkpoints
from detlit.cli.switches import with_switches
from detlit.cli.trainer import DetlitTrainer, default_loggers
from detlit.data import DetectionDataModule
from detlit.errors import CheckpointError, ConfigurationError, DetlitError
from detlit.models.checkpoint_entry import read_checkpoint
from detlit.module import DetectionModule
from detlit.spec import as_config, check_trusted

__all__ = ["main"]

for _name in callbacks.__all__:  # imported, a class is found by its bare name: class_path: CloseMosaic
    getattr(callbacks, _name)

LINKS = {
    "data.num_classes": "model.detector.init_args.num_classes",
    "data.class_names": "model.class_names",
    "data.preprocessing": "model.preprocessing",
}
"""What the model learns from the data; these model keys are therefore not settable."""


set_loader(
    "detlit", lambda text: with_shipped_parts(get_loader("yaml")(text)), exceptions=(yaml.YAMLError,)
)  # here, so that spawned processes, which unpickle a parser, know it too


class DetlitParser(FriendlyErrors, LightningArgumentParser):
    """Lightning's parser with short errors and names of shipped configs in config files."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "parser_mode": "detlit"})


class DetlitCLI(LightningCLI):
    """Config files and flags to a trainer, a module and a data module."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the Trainer methods on offer, with the arguments that do not become flags."""
        skipped = {"model", "train_dataloaders", "val_dataloaders", "dataloaders", "datamodule"}
        return dict.fromkeys(("fit", "validate", "test"), skipped)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the switchable callbacks, defaults and links."""
        parser.add_argument("--ema", type=EMA | None, default={"class_path": "detlit.callbacks.EMA"}, help=_EMA_HELP)
        parser.add_argument(
            "--checkpoint",
            type=Checkpoint | None,
            default={"class_path": "detlit.callbacks.Checkpoint"},
            help=_CHECKPOINT_HELP,
        )
        parser.add_argument("--allow_custom_code", type=bool, default=False, help=_CUSTOM_CODE_HELP)
        parser.set_defaults(
            {
                "model.loss": {"class_path": "detlit.losses.PPYoloELoss"},
                "model.post_prediction_callback": {"class_path": "detlit.postprocess.NMSPostPredictionCallback"},
                "model.metric": {"class_path": "detlit.metrics.CocoMeanAveragePrecision"},
                "trainer.default_root_dir": "runs",
            }
        )
        for source, target in LINKS.items():
            parser.link_arguments(source, target, apply_on="instantiate")

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        """Add what only an evaluation can do."""
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand != "fit":
            parser.add_argument("--report", type=str | None, default=None, help=_REPORT_HELP)
            parser.add_argument("--save_predictions", type=str | None, default=None, help=_PREDICTIONS_HELP)
            parser.add_argument("--per_class", action="store_true", help=_PER_CLASS_HELP)
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, with the checkpoint's own arguments as the lowest layer: config files and flags win over them."""
        argv = with_switches(sys.argv[1:] if args is None else args, ["allow_custom_code"])
        argv = with_named_checkpoints(with_shipped_configs(argv))
        _refuse_linked_keys(argv)
        if checkpoint := _checkpoint_argument(argv):
            trusted = any(name == "allow_custom_code" and value.lower() == "true" for _, name, value in flags(argv))
            config = _config_of(checkpoint, trusted, resume=argv[0] == "fit")
            argv = [argv[0], "--config", json.dumps(config), *argv[1:]]
        self.config = parser.parse_args(argv)
        run = self.config[self.config.subcommand]
        if run.ckpt_path is not None:
            run.model.weights = None  # the checkpoint's replace them, and the file may be gone by now

    def _parse_ckpt_path(self) -> None:
        """Do nothing: upstream lets a checkpoint's arguments win over flags; see :meth:`parse_arguments`."""

    def instantiate_classes(self) -> None:
        """Make trainer, module and data module; arguments that one of them refuses are a user's mistake."""
        try:
            super().instantiate_classes()
        except (ValueError, MisconfigurationException) as error:
            if isinstance(error, DetlitError):
                raise
            raise ConfigurationError(str(error)) from error

    def fit(self, **kwargs: Any) -> None:
        """Train; a run that cannot start leaves no empty folder, and what Lightning refuses is one line."""
        with without_empty_folder(self.trainer):
            self._run(self.trainer.fit, **kwargs)

    def validate(self, **kwargs: Any) -> None:
        """Score the validation split."""
        self._run(self.trainer.validate, **kwargs)

    def test(self, **kwargs: Any) -> None:
        """Score the test split."""
        self._run(self.trainer.test, **kwargs)

    def _run(self, method: Callable[..., object], **kwargs: Any) -> None:
        try:
            method(**kwargs)
        except ValueError as error:
            if isinstance(error, DetlitError) or not _is_raised_by_lightning(error):
                raise
            raise ConfigurationError(str(error)) from error

    def before_validate(self) -> None:
        """Refuse to do nothing."""
        self._require_split("val")

    def before_test(self) -> None:
        """Refuse to do nothing."""
        self._require_split("test")

    def _require_split(self, split: str) -> None:
        if split not in self.datamodule.splits:
            raise ConfigurationError(f"there is no {split} split to score: set data.{split}.")
        if not self.config[self.subcommand].ckpt_path and not self.config[self.subcommand].model.weights:
            raise ConfigurationError("there is nothing to score, the weights would be random: set --ckpt_path.")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the trainer, with loggers, atomic checkpoints and the callbacks that are always on."""
        config = self._get(self.config_init, "trainer")
        if config["logger"] is None:
            fitting = self.subcommand == "fit" and not config["fast_dev_run"]
            kwargs["logger"] = default_loggers(config["default_root_dir"]) if fitting else False
        kwargs["plugins"] = [*_as_list(config["plugins"]), AtomicCheckpointIO()]
        chosen = _as_list(config["callbacks"])
        callbacks = [MonitorGuard(), *chosen, *self._default_callbacks({**config, **kwargs}, chosen)]
        if config["enable_progress_bar"] is not False and not _has(chosen, ProgressBar) and not config["barebones"]:
            callbacks.append(EpochProgress())
        if config["enable_model_summary"] is None and not _has(chosen, ModelSummary):
            callbacks.append(ModelSize())
            kwargs["enable_model_summary"] = False
        if config["enable_checkpointing"] is None:  # otherwise Lightning would add a checkpoint callback of its own
            kwargs["enable_checkpointing"] = _has(callbacks, ModelCheckpoint)
        kwargs["callbacks"] = callbacks
        trainer: Trainer = super().instantiate_trainer(**kwargs)
        return trainer

    def _default_callbacks(self, trainer_config: dict[str, Any], chosen: list[Callback]) -> list[Callback]:
        """Return the callbacks that are always on, less what the config turns off or has chosen itself."""
        ema, checkpoint = self._get(self.config_init, "ema"), self._get(self.config_init, "checkpoint")
        callbacks = always_on(chosen)
        if self.subcommand == "fit" and trainer_config["logger"]:
            callbacks.append(LearningRateMonitor(logging_interval="step"))
            if not _has(chosen, PlotMetrics):
                watched = {} if checkpoint is None else {"monitor": checkpoint.monitor, "mode": checkpoint.mode}
                callbacks.append(PlotMetrics(**watched))
        if ema is not None:
            callbacks.append(ema)
        if checkpoint is not None and trainer_config["enable_checkpointing"] is not False:
            callbacks += checkpoint.callbacks()
        return callbacks + self._evaluation_callbacks()

    def _evaluation_callbacks(self) -> list[Callback]:
        """Return what writes and prints more than the metrics of ``validate`` and ``test``, where that is asked for."""
        if self.subcommand == "fit":
            return []
        options = {key: self._get(self.config_init, key) for key in ("report", "save_predictions", "per_class")}
        return [EvaluationReport(**options)] if any(options.values()) else []


_EMA_HELP = "Moving average of the weights, which validation uses and checkpoints hold; null turns it off."
_CHECKPOINT_HELP = "Which checkpoints to keep: best.ckpt by a metric and last.ckpt; null turns them off."
_REPORT_HELP = "Folder for report.html, with curves, confusion and pictures of the worst mistakes, and metrics.json."
_PREDICTIONS_HELP = "Json file for all detections in COCO's results format, which detlit evaluate reads."
_PER_CLASS_HELP = "Also print a row for each class."
_CUSTOM_CODE_HELP = "Build classes from outside detlit and torch that a checkpoint names."


def main(argv: Sequence[str]) -> None:
    """Run ``fit``, ``validate`` or ``test``.

    Args:
        argv: the command and its options.
    """
    torch.set_float32_matmul_precision("high")
    with plain_words(argv[0]):
        DetlitCLI(
            DetectionModule,
            DetectionDataModule,
            trainer_class=DetlitTrainer,
            parser_class=DetlitParser,
            save_config_callback=RunFolder,
            save_config_kwargs={"command": shlex.join(["detlit", *argv])},
            seed_everything_default=42,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            parser_kwargs={"prog": "detlit", "allow_abbrev": False},
            args=list(argv),
        )


def _refuse_linked_keys(argv: Sequence[str]) -> None:
    """Refuse what sets keys that the data decide on: the parser would ignore it in a config without a word."""
    for _, name, value in flags(argv):
        for source, target in LINKS.items():
            for key in {target, target.replace(".init_args", "")}:
                inner = key if name == "config" else key.removeprefix(f"{name}.")
                if name == key or ((inner != key or name == "config") and find_key(_loaded(value), inner)):
                    cure = "data.class_names" if source == "data.num_classes" else source
                    where = f"--{name}" if name == key else f"in {value}"
                    raise ConfigurationError(
                        f"{key} ({where}) comes from the data and cannot be set: set {cure} instead."
                    )


def _loaded(value: str) -> Any:
    """Return inline JSON as what it says, and everything else, file names above all, as it is."""
    try:
        return json.loads(value) if value.lstrip().startswith("{") else value
    except json.JSONDecodeError:
        return value


def _checkpoint_argument(argv: Sequence[str]) -> str | None:
    """Return the value of ``--ckpt_path``.

    Raises:
        ConfigurationError: Lightning's words for checkpoints that detlit does not write.
    """
    for _, name, value in flags(argv):
        if name == "ckpt_path" and value in ("hpc", "registry"):
            raise ConfigurationError(
                f"--ckpt_path {value} names no file: give one, such as runs/version_0/checkpoints/last.ckpt, or say "
                "last for the newest last.ckpt of the runs so far."
            )
        if name == "ckpt_path" and value != "null":
            return value
    return None


def _config_of(checkpoint: str, trusted: bool, resume: bool) -> dict[str, Any]:
    """Return the arguments a checkpoint was trained with, as a config without the linked keys.

    Raises:
        CheckpointError: it cannot be read, lacks what a run to ``resume`` needs, or names code from outside detlit and
            torch and is not trusted.
    """
    content = read_checkpoint(checkpoint)
    if resume and "optimizer_states" not in content:
        raise CheckpointError(
            f"{checkpoint} holds weights alone, so training cannot be resumed from it: start anew from them with "
            f"--model.weights={checkpoint}."
        )
    entry = content["detlit"]
    if not trusted:
        check_trusted([entry["module"], entry["data"]])
    model = as_config(entry["module"])
    for name in ("class_names", "preprocessing", "weights"):
        model.pop(name, None)
    model["detector"]["init_args"].pop("num_classes", None)
    model = {key: value for key, value in model.items() if value is not None}
    data = {"class_names": entry["class_names"], "preprocessing": entry["preprocessing"]}
    return {"model": model, "data": as_config(entry["data"] or data)}


def _is_raised_by_lightning(error: BaseException) -> bool:
    """Tell a refused setting from a failure further down."""
    *_, (frame, _) = walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__")).startswith("lightning.")


def _has(callbacks: Sequence[Callback], kind: type) -> bool:
    return any(isinstance(callback, kind) for callback in callbacks)


def _as_list(value: Any) -> list[Any]:
    """Return what may be nothing, one thing or a list as a list."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
