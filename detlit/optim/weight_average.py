"""An exponential moving average of a module's weights, in plain PyTorch."""

import operator
from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, distributed, nn

__all__ = ["WeightAverage"]


class WeightAverage:
    """Moving average of the floating-point parameters and persistent buffers of a module.

    The averages are kept in float32 at least: a bfloat16 average would not notice steps of a slow decay. Integer
    buffers, such as counters, have no meaningful average; the module's own stand. The module may be changed while this
    lives: layers that are replaced or added (as quantization does) are noticed and start from their present values.
    What is written to its buffers while it holds the averages, such as batch norm statistics, replaces the averages.

    Args:
        module: the module to follow.
        values: averages to start from, by the names of ``state_dict``; others start from the module's values.
    """

    def __init__(self, module: nn.Module, values: Mapping[str, Tensor] | None = None) -> None:
        self._module = module
        self._averages = dict(values or {})
        self._live: dict[str, Tensor] = {}
        self._pairs: list[tuple[list[Tensor], list[Tensor]]] = []
        self._seen: list[Tensor | None] = []
        self._raw: dict[str, Tensor] | None = None
        self._follow()

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """Move every average to ``decay * average + (1 - decay) * value``, in one fused call per dtype."""
        self._follow()
        for averages, values in self._pairs:
            dtype = averages[0].dtype
            if values[0].dtype != dtype:
                values = [value.to(dtype) for value in values]
            _lerp(averages, values, 1.0 - decay)

    @torch.no_grad()
    def swap_in(self) -> None:
        """Give the module the averages and put its own values aside; storage stays where it is."""
        if self._raw is None:
            self._follow()
            self._raw = {name: value.clone() for name, value in self._live.items()}
            self._write(self._averages)

    @torch.no_grad()
    def swap_out(self) -> None:
        """Give the module its own values back, if the averages are in."""
        if self._raw is not None:
            self._take_over_buffers()
            self._write(self._raw)
            self._raw = None

    @torch.no_grad()
    def copy_to_module(self) -> None:
        """Give the module the averages for good."""
        self._take_over_buffers()
        self._follow()
        self._write(self._averages)
        self._raw = None

    def averaged(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a ``state_dict`` of the module with the averages in place of the values, in the values' dtypes."""
        if self._raw is None:
            self._follow()
        self._take_over_buffers()
        return {
            name: self._averages[name].to(value.dtype) if name in self._averages else value
            for name, value in state.items()
        }

    def raw(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a ``state_dict`` of the module with its own values, also while the averages are in."""
        return {**state, **(self._raw or {})}

    def higher_precision(self) -> dict[str, Tensor]:
        """Return the averages that :meth:`averaged` rounds to the dtype of the module."""
        return {name: average for name, average in self._averages.items() if average.dtype != self._live[name].dtype}

    @torch.no_grad()
    def broadcast_buffers(self) -> None:
        """Take the averaged buffers of rank 0: each rank's batch norm saw other images. A collective call."""
        buffers = dict(self._module.named_buffers(remove_duplicate=False))
        averages = [average for name, average in self._averages.items() if name in buffers]
        if averages:
            flat = torch.cat([average.flatten() for average in averages])
            distributed.broadcast(flat, src=0)
            sizes = [average.numel() for average in averages]
            for average, values in zip(averages, torch.split(flat, sizes), strict=True):
                average.copy_(values.view_as(average))

    @torch.no_grad()
    def _take_over_buffers(self) -> None:
        """While the averages are in, make what was written to buffers their averages."""
        if self._raw is None:
            return
        for name, _ in self._module.named_buffers(remove_duplicate=False):
            value, average = self._live.get(name), self._averages.get(name)
            if value is not None and average is not None and not torch.equal(value, average.to(value.dtype)):
                average.copy_(value)

    def _write(self, values: Mapping[str, Tensor]) -> None:
        torch._foreach_copy_(list(self._live.values()), [values[name] for name in self._live])

    def _follow(self) -> None:
        """Pair averages and values anew where the module holds other tensors than before."""
        held = _tensors(self._module)
        if len(held) == len(self._seen) and all(map(operator.is_, held, self._seen)):
            return
        self._seen = held
        self._live = {
            name: value
            for name, value in self._module.state_dict(keep_vars=True).items()
            if isinstance(value, Tensor) and value.is_floating_point()
        }
        self._averages = {name: self._average_of(name, value) for name, value in self._live.items()}
        pairs: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = defaultdict(lambda: ([], []))
        for name, value in self._live.items():
            averages, values = pairs[value.dtype]
            averages.append(self._averages[name])
            values.append(value)
        self._pairs = list(pairs.values())

    def _average_of(self, name: str, value: Tensor) -> Tensor:
        """Return the average of a value, in its memory format, without which updates are not fused."""
        average = self._averages.get(name)
        if average is None or average.shape != value.shape:
            average = value.detach()
        dtype = torch.promote_types(value.dtype, torch.float32)
        return torch.empty_like(value, dtype=dtype, requires_grad=False).copy_(average)


def _lerp(averages: Sequence[Tensor], values: Sequence[Tensor], weight: float) -> None:
    """Move each average to ``average + weight * (value - average)``; torch's optimizers use the same private call."""
    fused = getattr(torch, "_foreach_lerp_", None)
    if fused is not None:
        fused(averages, values, weight)
        return
    for average, value in zip(averages, values, strict=True):
        average.lerp_(value, weight)


def _tensors(module: nn.Module) -> list[Tensor | None]:
    """Return what the modules of a tree hold; five times quicker than ``state_dict``, as it runs every step."""
    modules: list[nn.Module] = [module]
    tensors: list[Tensor | None] = []
    while modules:
        part = modules.pop()
        tensors += part._parameters.values()
        tensors += part._buffers.values()
        modules += [child for child in part._modules.values() if child is not None]
    return tensors
