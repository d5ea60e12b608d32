"""Lean activation memory: save what is expensive to compute, compute the rest again in the backward pass.

Nearly half of what autograd saves of a convolutional network follows from the other half by elementwise work: what a
normalization and its activation make follows from the convolution before them, a concatenation from its parts. Inside
:func:`lean_activations` such a tensor is saved as a recipe, which the backward pass follows once, with the same kernels
and statistics, so that the values are the same to the last bit. No convolution runs twice, and running statistics are
updated once, both unlike :func:`torch.utils.checkpoint.checkpoint`.

In-place activated batch normalization, https://arxiv.org/abs/1712.02616, keeps the activation instead and inverts it,
which ReLU does not allow.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from detlit.models.recipes import Recipe, Recipes, View, unpack

__all__ = ["lean_activations"]


@contextmanager
def lean_activations() -> Iterator[None]:
    """Save recipes instead of tensors that are cheap to compute, in the forward pass that runs inside."""
    recipes = Recipes()
    with torch.autograd.graph.saved_tensors_hooks(recipes.pack, unpack), _Recorder(recipes):
        try:
            yield
        finally:
            recipes.clear()  # the graph keeps the hooks, and each recipe must go when its last reader does


class _Recorder(TorchFunctionMode):
    """Note the recipe of every tensor that a cheap function makes."""

    def __init__(self, recipes: Recipes) -> None:
        super().__init__()
        self.recipes = recipes

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        recorded = _RECORDED.get(func)
        return func(*args, **kwargs) if recorded is None else recorded(self.recipes, *args, **kwargs)


def _batch_norm(
    recipes: Recipes,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    has_parameters = running_mean is not None and weight is not None
    has_kernels = input.device.type in ("cpu", "cuda")
    if not (training and has_parameters and has_kernels and input.numel() > input.shape[1]):
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    output, mean, variance = _BatchNorm.apply(input, weight, bias, running_mean, running_var, momentum, eps)
    recipe = Recipe(lambda x: F.batch_norm(x, mean, variance, weight, bias, eps=eps), recipes.find(input))
    recipes.add(output, recipe)
    return cast(Tensor, output)


def _relu(recipes: Recipes, input: Tensor, inplace: bool = False) -> Tensor:
    source = recipes.find(input)
    if inplace and isinstance(source, View) and not input._is_view():
        recipe = Recipe(lambda x: F.relu(x, inplace=not source.recipe.is_kept), source)
        recipes.add(input, recipe, changes=1)  # now, because ReLU saves its output before it returns
    return F.relu(input, inplace)


def _silu(recipes: Recipes, input: Tensor, inplace: bool = False) -> Tensor:
    output = F.silu(input, inplace)
    if not inplace:
        recipes.add(output, Recipe(F.silu, recipes.find(input)))  # SiLU saves its input anyway
    return output


def _cat(recipes: Recipes, tensors: list[Tensor] | tuple[Tensor, ...], dim: int = 0, **options: Any) -> Tensor:
    output = torch.cat(tensors, dim, **options)
    parts = [recipes.find(x) for x in tensors]
    if any(isinstance(x, View) for x in parts):
        recipes.add(output, Recipe(lambda *parts: torch.cat(parts, dim), *parts))
    return output


_RECORDED: Mapping[Any, Callable[..., Tensor]] = MappingProxyType(
    {F.batch_norm: _batch_norm, F.relu: _relu, F.silu: _silu, torch.cat: _cat}
)


class _BatchNorm(torch.autograd.Function):
    """Batch normalization in training mode that also returns the mean and variance of the batch.

    With them the evaluation kernel gives the output again, for a fraction of the work of the training kernel.
    """

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        momentum: float,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean, variance = torch.batch_norm_update_stats(input, running_mean, running_var, momentum)
        # Whatever is saved passes the hooks, which takes longer than these small tensors are worth.
        ctx.weight, ctx.mean, ctx.variance, ctx.eps = weight, mean, variance, eps
        ctx.save_for_backward(input)
        ctx.mark_non_differentiable(mean, variance)
        return F.batch_norm(input, mean, variance, weight, bias, eps=eps), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        (input,) = ctx.saved_tensors
        inverse_deviation = torch.rsqrt(ctx.variance + ctx.eps)
        needed = list(ctx.needs_input_grad[:3])
        gradients = torch.ops.aten.native_batch_norm_backward(
            grad, input, ctx.weight, None, None, ctx.mean, inverse_deviation, True, ctx.eps, needed
        )
        return (*gradients, None, None, None, None)
