import pytest
import torch
from torch import nn

from detlit.errors import ConfigurationError
from detlit.optim import WarmupCosine, parameter_groups


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


class TwoBlocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.ModuleDict({"stem": nn.Conv2d(3, 4, 1), "norm": nn.BatchNorm2d(4)})
        self.backbone2 = nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.tensor(1.0))


def test_the_innermost_learning_rate_counts_and_others_have_the_optimizers() -> None:
    module = TwoBlocks()
    groups = parameter_groups(module, learning_rates={"backbone": 0.01, "backbone.stem": 0.02, "scale": 0.03})
    assert names_by_group(module, groups) == {
        "weight": {"backbone2.weight"},
        "bias": {"backbone2.bias"},
        "backbone/norm": {"backbone.norm.weight"},
        "backbone/bias": {"backbone.norm.bias"},
        "backbone.stem/weight": {"backbone.stem.weight"},
        "backbone.stem/bias": {"backbone.stem.bias"},
        "scale/norm": {"scale"},
    }
    optimizer = torch.optim.AdamW(groups, lr=1.0, weight_decay=0.05)
    assert [group["lr"] for group in optimizer.param_groups] == [1.0, 1.0, 0.01, 0.01, 0.02, 0.02, 0.03]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.05, 0, 0, 0, 0.05, 0, 0]


def test_a_schedule_scales_every_learning_rate_alike() -> None:
    groups = parameter_groups(TwoBlocks(), learning_rates={"backbone": 0.01})
    optimizer = torch.optim.SGD(groups, lr=1.0)
    WarmupCosine(optimizer, total_steps=10, warmup_steps=1)
    assert {group["name"]: group["lr"] for group in optimizer.param_groups if "weight" in group["name"]} == {
        "weight": 0.5,
        "backbone/weight": 0.005,
    }


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"backbon": 0.1}, "learning_rates names 'backbon', which no part of TwoBlocks is called"),
        ({"backbon": 0.1}, "did you mean backbone?"),
        ({"default": 0.1}, "(all others take the optimizer's rate): its parts are scale, backbone, backbone2."),
        ({"backbone2": 0.1}, "'backbone2', all of which is frozen or has other rates"),
        ({"backbone": 0.1, "backbone.stem": 0.1, "backbone.norm": 0.1}, "'backbone', all of which is frozen or has"),
        ({"backbone": 0.0}, "the learning rate of 'backbone' is 0.0: choose a positive one, or freeze"),
        ({"backbone": float("nan")}, "the learning rate of 'backbone' is nan"),
    ],
)
def test_learning_rates_that_nothing_would_have_are_refused(rates: dict[str, float], message: str) -> None:
    module = TwoBlocks()
    module.backbone2.requires_grad_(False)
    with pytest.raises(ConfigurationError) as error:
        parameter_groups(module, learning_rates=rates)
    assert message in str(error.value)


def test_the_first_expression_that_is_found_decides_on_the_weight_decay() -> None:
    module = TwoBlocks()
    decays = {r"stem\.bias$": 0.0, r"^backbone\.": 0.01, "bias": 0.02}
    groups = parameter_groups(module, learning_rates={"backbone.stem": 0.5}, weight_decays=decays)
    assert names_by_group(module, groups) == {
        "norm": {"scale"},
        "weight": {"backbone2.weight"},
        "0.01/norm": {"backbone.norm.weight"},
        "0.01/bias": {"backbone.norm.bias"},
        "0.02/bias": {"backbone2.bias"},
        "backbone.stem/0/bias": {"backbone.stem.bias"},
        "backbone.stem/0.01/weight": {"backbone.stem.weight"},
    }
    optimizer = torch.optim.AdamW(groups, lr=1.0, weight_decay=0.05)
    assert {group["name"]: group["weight_decay"] for group in optimizer.param_groups} == {
        "norm": 0.0,
        "weight": 0.05,
        "0.01/norm": 0.01,
        "0.01/bias": 0.01,
        "0.02/bias": 0.02,
        "backbone.stem/0/bias": 0.0,
        "backbone.stem/0.01/weight": 0.01,
    }


def test_expressions_count_without_zero_decay_too() -> None:
    optimizer = torch.optim.AdamW(parameter_groups(TwoBlocks(), False, weight_decays={"scale": 0.5}), weight_decay=0.05)
    assert {group["name"]: group["weight_decay"] for group in optimizer.param_groups} == {
        "weight": 0.05,
        "norm": 0.05,
        "bias": 0.05,
        "0.5/norm": 0.5,
    }


@pytest.mark.parametrize(
    ("decays", "message"),
    [
        ({"backbon_": 0.1}, "weight_decays names 'backbon_', which is found first in no trainable parameter of TwoBl"),
        ({"bias": 0.1, "stem.bias": 0.2}, "'stem.bias', which is found first in no trainable parameter"),
        ({"backbone2": 0.1}, "'backbone2', which is found first in no trainable parameter"),
        ({"bias": -0.1}, "the weight decay of 'bias' is -0.1: choose 0 or more"),
        ({"bias": float("inf")}, "the weight decay of 'bias' is inf"),
        ({"(bias": 0.1}, "weight_decays names '(bias', which is no regular expression (missing ), unterminated"),
    ],
)
def test_weight_decays_that_nothing_would_have_are_refused(decays: dict[str, float], message: str) -> None:
    module = TwoBlocks()
    module.backbone2.requires_grad_(False)
    with pytest.raises(ConfigurationError) as error:
        parameter_groups(module, weight_decays=decays)
    assert message in str(error.value)
