"""Statistics of batch norm that belong to the weights that are validated."""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader, IterableDataset

from detlit.callbacks.effective_batch import effective_batch_size
from detlit.callbacks.silence import unnoticed
from detlit.errors import ConfigurationError

__all__ = ["Moments", "PreciseBatchNorm"]


class PreciseBatchNorm(Callback):
    """Before each validation, recompute the running statistics of batch norm for the weights that it sees.

    Running statistics come from the batches of past steps, which other weights saw; here they are the moments of
    training samples under the present weights, pooled over all batches and ranks (https://arxiv.org/abs/2105.07576,
    section 3). With :class:`~detlit.callbacks.EMA` the averages get them, as they are validated and saved, and the
    weights as trained keep their own. Without, or where EMA validates the weights as trained, these get them: training
    goes on as it would have, as it does not read them. :class:`~detlit.callbacks.BestWeightsAverage` validates and
    saves its mean with statistics of its own.

    The samples are the first of the epoch, augmented as in training. They come from a loader of their own and go
    through ``training_step``, so that neither the data order nor the random numbers of training change, and a resumed
    run stays exact. Layers in evaluation mode, as where the backbone is frozen, keep their statistics. It works on any
    LightningModule with batch norm.

    Args:
        num_samples: training images of all ranks together, rounded up to whole batches; an epoch at most.

    Raises:
        ConfigurationError: no samples, or a module without batch norm; when validation starts, training data that are
            not a DataLoader over a data set with indices.
    """

    def __init__(self, num_samples: int = 1000) -> None:
        if num_samples < 1:
            raise ConfigurationError(f"num_samples={num_samples} is too small: set it to 1 or more.")
        self.num_samples = num_samples

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a module without batch norm."""
        if stage == "fit" and not any(isinstance(part, _BatchNorm) for part in pl_module.modules()):
            raise ConfigurationError(
                f"PreciseBatchNorm finds no batch norm in {type(pl_module).__name__}: remove the callback."
            )

    @torch.no_grad()
    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Recompute: the averages of EMA are in place by now, whatever the order of callbacks."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        loader = _copy_of(trainer.train_dataloader)
        batches = math.ceil(self.num_samples / effective_batch_size(trainer, accumulate=1))
        with _as_in_training(trainer, pl_module), unnoticed(pl_module):
            moments = {
                part: Moments(part)
                for part in pl_module.modules()
                if isinstance(part, _BatchNorm) and part.training and part.running_mean is not None
            }
            try:
                for number, batch in enumerate(islice(loader, batches)):
                    moved = _moved(trainer, pl_module, batch)
                    with trainer.precision_plugin.train_step_context():
                        pl_module.training_step(moved, number)
            finally:
                for moment in moments.values():
                    moment.handle.remove()
        if trainer.world_size > 1 and moments:
            _sum_over_ranks(list(moments.values()))
        for layer, moment in moments.items():
            moment.write_to(layer)


class Moments:
    """Mean and variance of what enters a batch norm layer, per channel, over several batches.

    With mean ``m`` and biased variance ``v`` of each batch they are ``E[m]`` and ``E[v + m^2] - E[m]^2``, where a batch
    weighs as much as it has elements.

    Args:
        layer: is watched until ``handle.remove()``.
    """

    def __init__(self, layer: _BatchNorm) -> None:
        device = next(layer.buffers()).device
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.sums = torch.zeros(3, layer.num_features, dtype=dtype, device=device)
        self.handle = layer.register_forward_pre_hook(self._add)

    def _add(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Add a batch ``(B, C)`` or ``(B, C, ...)``."""
        values = inputs[0].to(torch.promote_types(inputs[0].dtype, torch.float32))
        over = [axis for axis in range(values.ndim) if axis != 1]
        variance, mean = torch.var_mean(values, over, correction=0)
        variance, mean = variance.to(self.sums.dtype), mean.to(self.sums.dtype)
        count = values.numel() // values.shape[1]
        self.sums += count * torch.stack([torch.ones_like(mean), mean, variance + mean.square()])

    def write_to(self, layer: _BatchNorm) -> None:
        """Give the layer the moments as its running statistics; one that no batch reached keeps its own."""
        count, total, squares = self.sums
        if layer.running_mean is None or layer.running_var is None or not count[0]:
            return
        mean = total / count
        layer.running_mean.copy_(mean)
        layer.running_var.copy_((squares / count - mean.square()).clamp(min=0))


def _sum_over_ranks(moments: list[Moments]) -> None:
    flat = torch.cat([moment.sums.flatten() for moment in moments])
    distributed.all_reduce(flat)
    for moment, sums in zip(moments, torch.split(flat, [moment.sums.numel() for moment in moments]), strict=True):
        moment.sums = sums.view_as(moment.sums)


def _copy_of(loader: Any) -> DataLoader[Any]:
    """Return a loader of the epoch's batches from the first one on, with workers and generators of its own.

    Raises:
        ConfigurationError: data that cannot be read twice without changing what training reads.
    """
    readable = isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset)
    if not readable or loader.batch_sampler is None:
        raise ConfigurationError(
            f"PreciseBatchNorm cannot read ahead in {type(loader).__name__} without disturbing training: train with "
            "one DataLoader that makes batches of a data set with indices, or remove the callback."
        )
    batch_sampler = copy.deepcopy(loader.batch_sampler, {id(loader.dataset): loader.dataset})
    sampler: Any = getattr(batch_sampler, "sampler", None)
    if hasattr(sampler, "start_at"):  # a resumed epoch, whose first batches are those of the whole one
        sampler.start_at(sampler.epoch, 0)
    return DataLoader(
        loader.dataset,
        batch_sampler=batch_sampler,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=torch.Generator().manual_seed(0),
    )


def _moved(trainer: Trainer, pl_module: LightningModule, batch: Any) -> Any:
    """Return a batch on the device, after the hooks that a training batch goes through."""
    batch = pl_module._on_before_batch_transfer(trainer.precision_plugin.convert_input(batch))
    return pl_module._apply_batch_transfer_handler(batch, device=trainer.strategy.root_device)


@contextmanager
def _as_in_training(trainer: Trainer, pl_module: LightningModule) -> Iterator[None]:
    """Put every part of the module into the mode that it trains in, within a validation; compiled parts run eagerly."""
    modes = {part: part.training for part in pl_module.modules()}
    compiled = {part: part._compiled_call_impl for part in modes if part._compiled_call_impl is not None}
    stage = trainer.state.stage
    trainer.training = True
    trainer.fit_loop.epoch_loop.val_loop._module_mode.restore(pl_module)
    for part in compiled:
        part._compiled_call_impl = None
    try:
        yield
    finally:
        trainer.state.stage = stage
        for part, mode in modes.items():
            part.training = mode
        for part, call in compiled.items():
            part._compiled_call_impl = call
