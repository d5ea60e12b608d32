"""The largest batch that fits on the device."""

import gc
import math
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from detlit.callbacks.out_of_memory import is_out_of_memory
from detlit.callbacks.silence import unnoticed
from detlit.errors import ConfigurationError
from detlit.structures import Batch

__all__ = ["LargestBatchSize", "crowded_batch", "largest_batch_size"]


def largest_batch_size(step: Callable[[int], object], most: int) -> int:
    """Return the largest batch size up to ``most`` with which ``step`` does not run out of memory, 0 if there is none.

    It doubles from 2 until memory runs out, then halves the interval; one image alone, which batch norm may refuse, is
    tried only if two do not fit.
    """
    fits, too_large = 0, most + 1
    while fits + 1 < too_large:
        doubling = too_large > most
        size = min(max(2, 2 * fits), most) if doubling else (fits + too_large) // 2
        if _runs(step, size):
            fits = size
        else:
            too_large = size
    return fits


def _runs(step: Callable[[int], object], batch_size: int) -> bool:
    """Tell whether a step has enough memory; what it took is free again afterwards."""
    try:
        step(batch_size)
        runs = True
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        runs = False
    if torch.cuda.is_available():
        gc.collect()  # the error held the frames, and they the tensors
        torch.cuda.empty_cache()
    return runs


def crowded_batch(batch_size: int, image_size: tuple[int, int], num_objects: int, num_classes: int) -> Batch:
    """Return grey images with many objects each, of 8 pixels to half the image, always the same.

    Args:
        batch_size: number of images.
        image_size: (height, width) in pixels.
        num_objects: objects of each image.
        num_classes: their labels are below it.
    """
    generator = torch.Generator().manual_seed(0)
    count = batch_size * num_objects
    whole = torch.tensor([image_size[1], image_size[0]], dtype=torch.float32)
    sides = 8 * (whole / 16) ** torch.rand(count, 2, generator=generator)
    corners = torch.rand(count, 2, generator=generator) * (whole - sides)
    return Batch(
        torch.full((batch_size, 3, *image_size), 114, dtype=torch.uint8),
        torch.cat([corners, corners + sides], 1),
        torch.randint(num_classes, (count,), generator=generator),
        torch.zeros(count, dtype=torch.bool),
        torch.arange(batch_size).repeat_interleave(num_objects),
        counts=[num_objects] * batch_size,
        image_ids=range(batch_size),
        dataset_indices=range(batch_size),
        orig_sizes=[image_size] * batch_size,
        geometry=torch.tensor([[1.0, 1.0, 0.0, 0.0]], dtype=torch.float64).expand(batch_size, 4),
    )


class LargestBatchSize(Callback):
    """Before training, set ``data.batch_size`` to the largest that fits on the GPU in the worst case, less a margin.

    The worst case is a training step, the optimizer's included, on images of the largest multi-scale size with a crowd
    of objects each. Weights, buffers and random numbers are put back. It suits DetectionModule; for another module
    override :meth:`batch`. The learning rate stays as it is: see ``reference_batch_size`` of
    :class:`~detlit.callbacks.LRWarmup`.

    A resumed run goes on with the batch size of its checkpoint, whatever it finds itself.

    Args:
        num_objects: objects of each image.
        margin: share of the batch size found that is left for what else needs memory, such as EMA and validation.
        most: the largest batch size to try; ``None`` is no limit but the number of images, and refused on a CPU, where
            the system would end the process before an error is raised.

    Attributes:
        batch_size: what was found, less the margin.

    Raises:
        ConfigurationError: an argument out of range; when training starts, several devices, a CPU without ``most``,
            data without ``batch_size``, or not even one image that fits.
    """

    def __init__(self, num_objects: int = 300, margin: float = 0.1, most: int | None = None) -> None:
        if num_objects < 0:
            raise ConfigurationError(f"num_objects={num_objects} is negative: set it to 0 or more.")
        if not 0.0 <= margin < 1.0:
            raise ConfigurationError(f"margin={margin} is no share of a batch: choose one from 0 up to 1.")
        if most is not None and most < 1:
            raise ConfigurationError(f"most={most} leaves no batch size to try: set it to 1 or more.")
        self.num_objects = num_objects
        self.margin = margin
        self.most = most
        self.batch_size: int | None = None

    def batch(self, batch_size: int, trainer: Trainer, pl_module: LightningModule) -> Any:
        """Return a training batch of the worst kind, on the CPU."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        sizes = [data.preprocessing.size, *data._sizes]
        return crowded_batch(batch_size, max(sizes, key=math.prod), self.num_objects, data.num_classes)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Search, before schedules ask for the length of the run."""
        if stage != "fit":
            return
        owner = _owner(trainer, pl_module)
        most = self._most(trainer)
        found = largest_batch_size(_Step(trainer, pl_module, self.batch), most)
        if found == 0:
            raise ConfigurationError(
                "not even one image fits into memory: use a smaller image size, a smaller detector or "
                "trainer.precision=bf16-mixed."
            )
        self.batch_size = owner.batch_size = max(1, int(found * (1 - self.margin)))
        rank_zero_info(
            f"batch size {self.batch_size}: the largest that fits is {found}"
            f"{' or more' if found == most else ''}; data.batch_size={self.batch_size} sets it without a search."
        )

    def _most(self, trainer: Trainer) -> int:
        if trainer.world_size > 1:
            raise ConfigurationError(
                f"LargestBatchSize searches on one device and there are {trainer.world_size}: search with "
                "trainer.devices=1, then remove the callback and set data.batch_size to what it finds."
            )
        device = trainer.strategy.root_device.type
        if self.most is None and device != "cuda":
            raise ConfigurationError(
                f"LargestBatchSize cannot tell when the memory of a {device} runs out, as the system ends the process "
                "first: remove the callback and set data.batch_size, or set most to a batch size that is safe."
            )
        dataset = getattr(trainer.datamodule, "dataset", lambda split: None)("train")  # type: ignore[attr-defined]
        images = 65536 if dataset is None else len(dataset)
        return images if self.most is None else min(images, self.most)

    def state_dict(self) -> dict[str, Any]:
        """Return the batch size."""
        return {"batch_size": self.batch_size}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on with the batch size of the checkpoint; its loader is made after this."""
        found = checkpoint["callbacks"].get(self.state_key, {}).get("batch_size")
        if found is not None and trainer.training:
            self.batch_size = _owner(trainer, pl_module).batch_size = found


class _Step:
    """A training step that leaves the module as it was."""

    def __init__(self, trainer: Trainer, pl_module: LightningModule, batch: Callable[..., Any]) -> None:
        self.trainer, self.pl_module, self.batch = trainer, pl_module, batch

    def __call__(self, batch_size: int) -> None:
        """Train on one batch, twice: in the second step the optimizer has its state from the start."""
        trainer, module = self.trainer, self.pl_module
        device = trainer.strategy.root_device
        module.to(device)
        weights = {name: parameter.detach().cpu().clone() for name, parameter in module.named_parameters()}
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        make = getattr(module, "optimizer", torch.optim.AdamW)
        optimizer = make(trained)
        try:
            for number in range(2):
                self._train(optimizer, self.batch(batch_size, trainer, module), number)
        finally:
            optimizer.zero_grad(set_to_none=True)
            with torch.no_grad():
                for name, parameter in module.named_parameters():
                    parameter.copy_(weights[name])

    def _train(self, optimizer: torch.optim.Optimizer, batch: Any, number: int) -> None:
        trainer, module = self.trainer, self.pl_module
        batch = module._apply_batch_transfer_handler(batch, device=trainer.strategy.root_device)
        with torch.enable_grad(), unnoticed(module), trainer.precision_plugin.train_step_context():
            output = module.training_step(batch, number)
            loss: Any = output["loss"] if isinstance(output, dict) else output
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)


def _owner(trainer: Trainer, pl_module: LightningModule) -> Any:
    """Return who decides on the batch size."""
    for owner in (trainer.datamodule, pl_module):  # type: ignore[attr-defined]
        if isinstance(getattr(owner, "batch_size", None), int):
            return owner
    raise ConfigurationError(
        "LargestBatchSize needs a data module, or a module, whose batch_size its training loader takes: add the "
        "attribute, or remove the callback."
    )
