"""What came out of a run, in a table."""

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from rich.console import Console
from rich.table import Table

__all__ = ["RunSummary", "epochs_done"]


class RunSummary(Callback):
    """Print the final metrics, and after training where the checkpoints are.

    Where no progress bar is seen, as in a log file, each validation of a fit prints a line with what the bar would
    show. A run that an error or Ctrl-C ends prints no table: its metrics are those of some earlier epoch.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Silence Lightning's own table of the same numbers."""
        trainer.validate_loop.verbose = False
        trainer.test_loop.verbose = False

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the metrics of the last epoch and the paths of the checkpoints."""
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            _print_metrics(f"after {epochs_done(trainer.current_epoch, trainer.max_epochs)}", trainer)
            _print_checkpoints(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the metrics of ``validate``, or a line of ``fit``."""
        if not trainer.is_global_zero or trainer.sanity_checking:
            return
        if trainer.state.fn == TrainerFn.VALIDATING:
            _print_metrics("validation", trainer)
        elif not _shows_a_bar(trainer):
            metrics = trainer.progress_bar_metrics or trainer.callback_metrics
            values = ", ".join(f"{name} {float(value):.4f}" for name, value in metrics.items())
            line = f"epoch {trainer.current_epoch}, step {trainer.global_step}: {values}"
            Console(soft_wrap=True, highlight=False).print(line, markup=False)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the metrics of ``test``."""
        if trainer.is_global_zero:
            _print_metrics("test", trainer)


def _shows_a_bar(trainer: Trainer) -> bool:
    console = Console()
    return trainer.progress_bar_callback is not None and (console.is_terminal or console.is_jupyter)


def epochs_done(count: int, most: int | None) -> str:
    """Return how many epochs were trained, of at most so many if there is an end: ``"3 of 10 epochs"``."""
    if most is not None and most > 0:
        return f"{count} of {most} epoch{'s' * (most != 1)}"
    return f"{count} epoch{'s' * (count != 1)}"


def _print_metrics(title: str, trainer: Trainer) -> None:
    """Print what was logged, validation first; values of single steps are left out.

    COCO's -1, for what no object of the data measures, is a dash.
    """
    metrics = {name: value for name, value in trainer.callback_metrics.items() if not name.endswith("_step")}
    if not metrics:
        return
    table = Table(title=title, title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    names = [name for name in metrics if not name.startswith("lr-")]  # LearningRateMonitor's, at the end of a schedule
    for name in sorted(names, key=lambda name: (name.startswith("train/"), name)):
        value = metrics[name].item()
        table.add_row(name, "-" if value == -1 else f"{value:.4f}")
    Console().print(table)


def _print_checkpoints(trainer: Trainer) -> None:
    console = Console(soft_wrap=True, highlight=False)
    for saver in trainer.checkpoint_callbacks:
        if not isinstance(saver, ModelCheckpoint) or not saver.best_model_path:
            continue
        if saver.monitor is None:
            console.print(f"last checkpoint: {saver.best_model_path}", markup=False)
        elif saver.best_model_score is not None:
            score = f"{saver.monitor} {saver.best_model_score.item():.4f}"
            console.print(f"best checkpoint: {saver.best_model_path} ({score})", markup=False)
