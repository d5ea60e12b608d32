from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detlit.errors import ConfigurationError
from detlit.models.layers import (
    SPP,
    Bottleneck,
    ConvBNReLU,
    CSPLayer,
    CSPRepLayer,
    EffectiveSE,
    InputNormalization,
    QARepVGGBlock,
    RepBottleneck,
    RepVGGBlock,
)
from detlit.structures import Preprocessing


def randomized(module: nn.Module) -> Any:
    """The module in float64, with norms that are no identity."""
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            nn.init.uniform_(child.weight, 0.5, 1.5)
            nn.init.normal_(child.bias)
            nn.init.normal_(child.running_mean)
            nn.init.uniform_(child.running_var, 0.5, 1.5)
    return module.double()


def assert_same_with_gradients(fast: Tensor, slow: Tensor, x: Tensor) -> None:
    torch.testing.assert_close(fast, slow)
    weights = torch.randn_like(fast)
    gradients = [torch.autograd.grad((y * weights).sum(), x, retain_graph=True)[0] for y in (fast, slow)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(("out_channels", "stride"), [(4, 1), (6, 1), (4, 2)], ids=["identity", "wider", "stride 2"])
def test_qarepvgg_block_is_the_sum_of_its_branches(out_channels: int, stride: int) -> None:
    block = randomized(QARepVGGBlock(4, out_channels, stride))
    x = torch.randn(2, 4, 6, 8, dtype=torch.float64, requires_grad=True)
    pointwise = F.conv2d(x, block.branch_1x1.weight, block.branch_1x1.bias, stride=stride)
    total = block.branch_3x3.bn(block.branch_3x3.conv(x)) + pointwise
    if stride == 1 and out_channels == 4:
        total = total + x
    assert_same_with_gradients(block(x), torch.relu(block.post_bn(total)), x)


def test_repvgg_block_is_the_sum_of_its_branches() -> None:
    block = randomized(RepVGGBlock(4, 6))
    x = torch.randn(2, 4, 6, 8, dtype=torch.float64, requires_grad=True)
    branches = [branch.bn(branch.conv(x)) for branch in (block.branch_3x3, block.branch_1x1)]
    assert_same_with_gradients(block(x), F.silu(branches[0] + branches[1]), x)


@pytest.mark.parametrize("full", [True, False])
def test_fused_repvgg_block_computes_the_same(full: bool) -> None:
    block = randomized(RepVGGBlock(4, 6)).eval()
    x = torch.randn(2, 4, 6, 8, dtype=torch.float64)
    expected = block(x)
    for _ in range(2):
        block.fuse(full)
        torch.testing.assert_close(block(x), expected, rtol=1e-12, atol=1e-12)
    assert {name: value.shape for name, value in block.named_parameters()} == {
        "conv.weight": (6, 4, 3, 3),
        "conv.bias": (6,),
    }
    assert not list(block.buffers())


def test_fusing_in_training_mode_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"normalizes by the batch.*: call eval\(\) before fuse\(\)"):
        RepVGGBlock(4, 4).fuse()


def test_effective_se_scales_channels() -> None:
    attention = EffectiveSE(2).double()
    nn.init.zeros_(attention.project.weight)
    attention.project.bias.data = torch.tensor([-3.0, 1.5], dtype=torch.float64)
    x = torch.randn(2, 2, 3, 3, dtype=torch.float64)
    torch.testing.assert_close(attention(x), x * torch.tensor([0.0, 0.75], dtype=torch.float64).view(1, 2, 1, 1))


@pytest.mark.parametrize("shortcut", [True, False])
def test_rep_bottleneck_with_and_without_shortcut(shortcut: bool) -> None:
    bottleneck = randomized(RepBottleneck(4, shortcut))
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64, requires_grad=True)
    branch = bottleneck.conv2(bottleneck.conv1(x))
    assert_same_with_gradients(bottleneck(x), branch + x if shortcut else branch, x)


def test_csp_rep_layer_joins_both_halves_under_attention() -> None:
    layer = randomized(CSPRepLayer(6, 8, 4, nn.Sequential(RepBottleneck(4, True)), EffectiveSE(8)))
    x = torch.randn(2, 6, 5, 7, dtype=torch.float64, requires_grad=True)
    halves = torch.cat([layer.conv1(x), layer.bottlenecks(layer.conv2(x))], 1)
    assert_same_with_gradients(layer(x), layer.conv3(layer.attention(halves)), x)


def test_spp_pools_over_5_9_and_13() -> None:
    spp = randomized(SPP(8, 6))
    x = torch.randn(2, 8, 16, 15, dtype=torch.float64, requires_grad=True)
    hidden = spp.conv1(x)
    pooled = [F.max_pool2d(hidden, side, stride=1, padding=side // 2) for side in (5, 9, 13)]
    assert_same_with_gradients(spp(x), spp.conv2(torch.cat([hidden, *pooled], 1)), x)


def test_bottleneck_weighs_its_shortcut() -> None:
    bottleneck = Bottleneck(4, ConvBNReLU)
    x = torch.randn(2, 4, 5, 5)
    branch = bottleneck.conv2(bottleneck.conv1(x))
    torch.testing.assert_close(bottleneck(x), x + branch)
    nn.init.constant_(bottleneck.alpha, 0.5)
    torch.testing.assert_close(bottleneck(x), 0.5 * x + branch)


def test_bottleneck_stays_in_half_precision_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        output = Bottleneck(4, QARepVGGBlock)(torch.randn(2, 4, 5, 5).bfloat16())
    assert output.dtype == torch.bfloat16


@pytest.mark.parametrize(("concat_intermediates", "joined"), [(False, 2), (True, 5)])
def test_csp_layer_joins_intermediates(concat_intermediates: bool, joined: int) -> None:
    layer = CSPLayer(6, 8, 4, 3, ConvBNReLU, concat_intermediates)
    assert layer.conv3.conv.in_channels == joined * 4
    assert layer(torch.randn(2, 6, 5, 7)).shape == (2, 8, 5, 7)


def test_normalization_of_bytes_and_floats() -> None:
    preprocessing = Preprocessing(channel_order="BGR", mean=(0.2, 0.4, 0.6), std=(0.5, 1.0, 2.0))
    image = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    expected = torch.tensor([(1 - 0.2) / 0.5, 0.2 - 0.4, (0 - 0.6) / 2]).view(1, 3, 1, 1)
    normalization = InputNormalization(preprocessing)
    torch.testing.assert_close(normalization(image, torch.float32), expected)
    torch.testing.assert_close(normalization(image / 255, torch.float32), expected)
    assert not normalization.state_dict()


def test_normalization_leaves_the_image_alone() -> None:
    image = torch.full((1, 3, 2, 2), 0.5)
    normalization = InputNormalization(Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)))
    assert not normalization(image, torch.float32).any()
    assert (image == 0.5).all()


def test_normalization_refuses_other_integers() -> None:
    with pytest.raises(ConfigurationError, match=r"torch\.int64 have no known range: pass torch\.uint8"):
        InputNormalization(Preprocessing())(torch.zeros(1, 3, 32, 32, dtype=torch.int64), torch.float32)
