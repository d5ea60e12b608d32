import pytest
import torch
from torch import nn

from detlit.errors import ConfigurationError
from detlit.optim import freeze_parts, keep_frozen_in_eval


def block() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False), nn.Dropout())


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.ModuleList([block(), block()])
        self.neck = block()
        self.head = nn.Linear(4, 2)


def trainable(module: nn.Module) -> set[str]:
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


def in_training_mode(module: nn.Module) -> set[str]:
    return {name for name, part in module.named_modules() if part.training}


def both(*parts: str) -> set[str]:
    return {f"{part}.{kind}" for part in parts for kind in ("weight", "bias")}


@pytest.mark.parametrize(
    ("patterns", "frozen"),
    [
        (["head"], both("head")),
        (["head.bias"], {"head.bias"}),
        (["backbone.0"], both("backbone.0.0", "backbone.0.1")),
        (["backbone.?.0", "h*"], both("backbone.0.0", "backbone.1.0", "head")),
        (["neck.*", "*.1.1.weight"], both("neck.0", "neck.1") | {"backbone.1.1.weight"}),
    ],
)
def test_names_and_patterns_freeze_what_they_match(patterns: list[str], frozen: set[str]) -> None:
    network = Network()
    everything = trainable(network)
    freeze_parts(network, patterns)
    assert everything - trainable(network) == frozen


def test_what_is_frozen_as_a_whole_stays_in_evaluation_mode() -> None:
    network = Network()
    freeze_parts(network, ["backbone.0", "neck.0", "head.bias"])
    frozen = {"backbone.0", *(f"backbone.0.{i}" for i in range(4)), "neck.0"}
    everything = {name for name, _ in network.named_modules()}
    assert in_training_mode(network) == everything - frozen
    network.train()
    assert in_training_mode(network) == everything
    keep_frozen_in_eval(network)
    assert in_training_mode(network) == everything - frozen


def test_running_statistics_of_frozen_batch_norm_do_not_move() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(block(), block()[:2])
    network[1][0] = nn.Conv2d(4, 4, 1)
    freeze_parts(network, ["0"])
    network(torch.randn(2, 3, 4, 4))
    assert network[0][1].num_batches_tracked == network[0][2].num_batches_tracked == 0
    assert network[1][1].num_batches_tracked == 1


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["head", "backbon"], "freeze names 'backbon', which no part of Network is called: did you mean backbone?"),
        (["backbone.00"], "did you mean backbone.0"),
        (["encoder.*"], "its parts are backbone, neck, head."),
        (["*"], "leaves nothing to train: keep at least the head out of it"),
    ],
)
def test_refused(patterns: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        freeze_parts(Network(), patterns)
    assert message in str(error.value)


def test_a_shared_parameter_is_frozen_under_each_of_its_names() -> None:
    network = Network()
    network.head.weight = network.tied = nn.Parameter(torch.zeros(2, 4))
    freeze_parts(network, ["tied"])
    assert not network.head.weight.requires_grad
