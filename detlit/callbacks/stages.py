"""Training in stages: what changes from one epoch to another."""

from collections.abc import Iterator
from fnmatch import fnmatchcase

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.optim import Optimizer

from detlit.errors import ConfigurationError

__all__ = ["FreezeBackbone", "StageSwitch", "StaticAssignerSwitch"]


class StageSwitch(Callback):
    """Base of callbacks that switch something by the epoch.

    Override :meth:`switch`. It is called at the start of every epoch and whenever training starts, so also in the
    middle of an epoch that is resumed: a rule on the epoch alone (``epoch >= 10``, never ``epoch == 10``) is then right
    after any resume, and needs no state in checkpoints. What data workers read travels in their indices instead, see
    :class:`~detlit.callbacks.CloseMosaic`.
    """

    def switch(self, trainer: Trainer, pl_module: LightningModule, epoch: int) -> None:
        """Put everything into the state it has in ``epoch``, counted from 0."""
        raise NotImplementedError

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Switch where an epoch is resumed, which starts without :meth:`on_train_epoch_start`."""
        self.switch(trainer, pl_module, trainer.current_epoch)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Switch."""
        self.switch(trainer, pl_module, trainer.current_epoch)


class StaticAssignerSwitch(StageSwitch):
    """Assign with the static assigner first, as PP-YOLOE does: ``pl_module.loss.use_static_assigner``.

    Args:
        num_epochs: epochs before the task-aligned assigner takes over.
    """

    def __init__(self, num_epochs: int) -> None:
        self.num_epochs = _epochs("num_epochs", num_epochs)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a loss without the switch."""
        if not hasattr(getattr(pl_module, "loss", None), "use_static_assigner"):
            raise ConfigurationError(
                f"StaticAssignerSwitch sets loss.use_static_assigner, which {type(pl_module).__name__} does not have: "
                "remove the callback or use PPYoloELoss."
            )

    def switch(self, trainer: Trainer, pl_module: LightningModule, epoch: int) -> None:
        """Choose the assigner."""
        loss: nn.Module = pl_module.loss  # type: ignore[assignment]
        loss.use_static_assigner = epoch < self.num_epochs  # type: ignore[assignment]


class FreezeBackbone(StageSwitch):
    """Train without the backbone first: its weights and running statistics stand still until an epoch.

    The optimizer knows the frozen parameters from the start, so that its groups and its state in checkpoints stay the
    same. A single process computes no gradients for them. With several, DistributedDataParallel waits for the gradients
    that it saw when it wrapped the module, so they are computed and thrown away before the optimizer's step. What was
    frozen anyway (``model.freeze``) stays so.

    Args:
        unfreeze_at_epoch: the first epoch in which it learns, counted from 0.
        part: name of the submodule, or a pattern as in :mod:`fnmatch`.
    """

    def __init__(self, unfreeze_at_epoch: int, part: str = "detector.backbone") -> None:
        self.unfreeze_at_epoch = _epochs("unfreeze_at_epoch", unfreeze_at_epoch)
        self.part = part
        self._parameters: list[nn.Parameter] = []
        self._modes: dict[nn.Module, bool] = {}
        self._frozen = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the parameters that would learn."""
        parts = list(self._parts(pl_module))
        if not parts:
            names = ", ".join(name for name, _ in pl_module.named_children())
            raise ConfigurationError(
                f"FreezeBackbone part={self.part!r} is no part of {type(pl_module).__name__}: its parts are {names}."
            )
        unique = {id(parameter): parameter for part in parts for parameter in part.parameters()}
        self._parameters = [parameter for parameter in unique.values() if parameter.requires_grad]
        self._frozen = False

    def switch(self, trainer: Trainer, pl_module: LightningModule, epoch: int) -> None:
        """Freeze or unfreeze."""
        frozen = epoch < self.unfreeze_at_epoch
        if trainer.world_size == 1:
            for parameter in self._parameters:
                parameter.requires_grad_(not frozen)
        if frozen and not self._frozen:
            self._modes = {module: module.training for part in self._parts(pl_module) for module in part.modules()}
        for module, training in self._modes.items():
            module.training = training and not frozen
        if not frozen:
            self._modes = {}
        self._frozen = frozen

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Let the optimizer pass over the frozen parameters, weight decay and momentum included."""
        if self._frozen:
            for parameter in self._parameters:
                parameter.grad = None

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the module as it was."""
        for parameter in self._parameters:
            parameter.requires_grad_(True)

    def _parts(self, pl_module: LightningModule) -> Iterator[nn.Module]:
        return (part for name, part in pl_module.named_modules() if fnmatchcase(name, self.part))


def _epochs(name: str, value: int) -> int:
    if value < 1:
        raise ConfigurationError(f"{name}={value} would change nothing: set it to 1 or more, or remove the callback.")
    return value
