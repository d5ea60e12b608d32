import pytest
import torch
from torch import nn

from detlit.optim import parameter_groups


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.spatial_norm = nn.LayerNorm([4, 8, 8])
        self.alpha = nn.Parameter(torch.tensor(1.0))
        self.attention = nn.MultiheadAttention(4, 1)


def names_by_group(module: nn.Module, groups: list[dict]) -> dict[str, set[str]]:
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return {group["name"]: {names[id(parameter)] for parameter in group["params"]} for group in groups}


def test_each_parameter_is_in_the_group_of_its_kind() -> None:
    block = Block()
    assert names_by_group(block, parameter_groups(block)) == {
        "weight": {"conv.weight", "attention.in_proj_weight", "attention.out_proj.weight"},
        "norm": {"norm.weight", "spatial_norm.weight", "alpha"},
        "bias": {"conv.bias", "norm.bias", "spatial_norm.bias", "attention.in_proj_bias", "attention.out_proj.bias"},
    }


@pytest.mark.parametrize(("zero", "decays"), [(True, [0.05, 0.0, 0.0]), (False, [0.05, 0.05, 0.05])])
def test_weight_decay_of_each_group(zero: bool, decays: list[float]) -> None:
    optimizer = torch.optim.AdamW(parameter_groups(Block(), zero), weight_decay=0.05)
    assert [group["weight_decay"] for group in optimizer.param_groups] == decays


def test_frozen_parameters_and_empty_groups_are_left_out() -> None:
    block = Block()
    block.requires_grad_(False)
    block.conv.weight.requires_grad_(True)
    assert names_by_group(block, parameter_groups(block)) == {"weight": {"conv.weight"}}


def test_shared_parameters_are_listed_once() -> None:
    shared = nn.Linear(2, 2)
    module = nn.Sequential(shared, shared, nn.Linear(2, 2))
    module[2].weight = shared.weight
    listed = [id(parameter) for group in parameter_groups(module) for parameter in group["params"]]
    assert sorted(listed) == sorted({id(parameter) for parameter in module.parameters()})


def test_works_with_an_optimizer_that_knows_no_weight_decay() -> None:
    assert len(torch.optim.Rprop(parameter_groups(Block())).param_groups) == 3
