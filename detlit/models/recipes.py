"""Recipes: how to compute a tensor again instead of saving it for the backward pass."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import TensorWeakRef

__all__ = ["Recipe", "Recipes", "View", "unpack"]


class Recipe:
    """How to compute a tensor again.

    Args:
        function: returns the tensor, given the inputs.
        inputs: tensors that are kept, and views of those that have a recipe themselves.
    """

    def __init__(self, function: Callable[..., Tensor], *inputs: "Tensor | View") -> None:
        self._function = function
        self._inputs = inputs
        self._readers = 0
        self._value: Tensor | None = None

    def expect_reader(self) -> None:
        """Announce one more call of :meth:`read`."""
        if self._readers == 0:
            for view in self._inputs:
                if isinstance(view, View):
                    view.recipe.expect_reader()
        self._readers += 1

    def read(self) -> Tensor:
        """Return the tensor: computed for its first reader, kept until its last.

        Readers that were not announced, as in a second backward pass through one graph, have it computed each time.
        """
        value = self._compute() if self._value is None else self._value
        self._readers -= 1
        self._value = value if self._readers > 0 else None
        return value

    @property
    def is_kept(self) -> bool:
        """Whether another reader will get the tensor that the last one got."""
        return self._value is not None

    @torch.no_grad()
    def _compute(self) -> Tensor:
        return self._function(*(unpack(x) for x in self._inputs))


class View(NamedTuple):
    """What is saved in place of a tensor: a recipe, and which part of the recipe's tensor it is."""

    recipe: Recipe
    size: torch.Size
    stride: tuple[int, ...]
    offset: int


def unpack(saved: Tensor | View) -> Tensor:
    """Return the tensor that ``saved`` stands for."""
    return saved if isinstance(saved, Tensor) else saved.recipe.read().as_strided(*saved[1:])


class Recipes:
    """The recipes of one forward pass, found by the storage of their tensors."""

    def __init__(self) -> None:
        self._entries: dict[int, tuple[TensorWeakRef, int, Recipe]] = {}

    def add(self, tensor: Tensor, recipe: Recipe, changes: int = 0) -> None:
        """Note the recipe of what ``tensor``, the whole of its storage, will be after so many changes in place."""
        entry = TensorWeakRef(tensor), tensor._version + changes, recipe
        self._entries[tensor.untyped_storage()._cdata] = entry

    def find(self, tensor: Tensor) -> Tensor | View:
        """Return ``tensor`` as a view of what a recipe makes, or itself, detached, if no recipe makes it."""
        if tensor.layout is not torch.strided:
            return tensor.detach()
        reference, version, recipe = self._entries.get(tensor.untyped_storage()._cdata, (None, 0, None))
        base = None if reference is None else reference()
        # If the base has died, another storage may live at its address; if it was changed, its recipe is outdated.
        if recipe is None or base is None or base._version != version or base.dtype != tensor.dtype:
            return tensor.detach()
        return View(recipe, tensor.size(), tensor.stride(), int(tensor.storage_offset()))

    def pack(self, tensor: Tensor) -> Tensor | View:
        """Return what to save of a tensor that the backward pass will read once."""
        saved = self.find(tensor)
        if isinstance(saved, Tensor):
            return tensor
        saved.recipe.expect_reader()
        return saved

    def clear(self) -> None:
        """Forget all recipes; those that :meth:`pack` gave away remain with their readers."""
        self._entries.clear()
