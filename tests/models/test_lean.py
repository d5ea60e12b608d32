import copy
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import detlit.models.detector
from detlit.models import Detector
from detlit.models.backbones import CSPResNet
from detlit.models.heads import PPYoloEHead
from detlit.models.layers import CSPLayer, QARepVGGBlock, RepVGGBlock
from detlit.models.lean import lean_activations
from detlit.models.necks import PPYoloENeck
from detlit.models.recipes import Recipe, Recipes, unpack
from detlit.spec import build, spec_of
from tests.benchmarks.memory import peak_bytes
from tests.processes import run_in_processes
from tests.tiny import tiny_detector

Twins = tuple[Detector, Detector]


def tiny_ppyoloe() -> Detector:
    backbone = CSPResNet(stem_channels=8, stage_channels=[8, 8, 16, 16], num_blocks=[1, 1, 1, 1])
    return Detector(backbone, partial(PPYoloENeck, stage_channels=[16, 8, 8], num_blocks=1), PPYoloEHead, 3)


def make_twins(make: Callable[[], Detector]) -> Twins:
    """A detector in training mode and a copy with lean memory."""
    torch.manual_seed(0)
    plain = make().double()
    for level in plain.head.levels:
        nn.init.normal_(level.cls_pred.weight, std=0.1)
        nn.init.normal_(level.reg_pred.weight, std=0.1)
    lean = copy.deepcopy(plain)
    lean.lean_memory = True
    return plain, lean


@pytest.fixture(params=[tiny_detector, tiny_ppyoloe], ids=["yolo_nas", "ppyoloe"])
def twins(request: pytest.FixtureRequest) -> Twins:
    return make_twins(request.param)


def random_images(batch_size: int = 2, side: int = 64, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch_size, 3, side, side), dtype=torch.uint8, generator=generator)


def loss_of(detector: nn.Module, images: Tensor) -> Tensor:
    predictions = detector(images)
    return predictions.cls_logits.float().square().mean() + predictions.reg_logits.float().square().mean()


def gradient_of(module: nn.Module) -> Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in module.parameters()])


def assert_identical(plain: nn.Module, lean: nn.Module) -> None:
    """Weights, running statistics and gradients are the same to the last bit."""
    for (name, ours), theirs in zip(lean.state_dict().items(), plain.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    for (name, ours), theirs in zip(lean.named_parameters(), plain.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None), name
        assert ours.grad is None or torch.equal(ours.grad, theirs.grad), name


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_gradients_are_bit_identical(twins: Twins, memory_format: torch.memory_format) -> None:
    images = random_images().contiguous(memory_format=memory_format)
    losses = []
    for detector in twins:
        losses.append(loss_of(detector.to(memory_format=memory_format), images))
        losses[-1].backward()
    assert torch.equal(*losses)
    assert_identical(*twins)


def test_gradients_of_several_graphs_add_up(twins: Twins) -> None:
    for detector in twins:
        first, second = (loss_of(detector, random_images(seed=seed)) for seed in (1, 2))
        (first + second).backward()
        loss_of(detector, random_images(seed=3)).backward()
    assert_identical(*twins)


def test_a_graph_can_be_used_twice(twins: Twins) -> None:
    for detector in twins:
        loss = loss_of(detector, random_images())
        loss.backward(retain_graph=True)
        loss.backward()
    assert_identical(*twins)


def test_frozen_parts(twins: Twins) -> None:
    for detector in twins:
        detector.backbone.requires_grad_(False)
        detector.neck.eval()
        loss_of(detector, random_images()).backward()
    assert_identical(*twins)


def test_partially_fused_detector() -> None:
    twins = make_twins(tiny_detector)
    for detector in twins:
        loss_of(detector.eval().fuse().train(), random_images()).backward()
    assert_identical(*twins)


@pytest.mark.parametrize("block", [QARepVGGBlock, RepVGGBlock])
def test_bf16_autocast(block: Callable[[int, int], nn.Module]) -> None:
    torch.manual_seed(0)
    plain = CSPLayer(8, 8, 4, 2, block, concat_intermediates=True)
    lean, x = copy.deepcopy(plain), torch.randn(4, 8, 32, 32)
    for layer, context in ((plain, nullcontext()), (lean, lean_activations())):
        with torch.autocast("cpu", torch.bfloat16), context:
            output = layer(x)
        assert output.dtype == torch.bfloat16
        output.float().square().mean().backward()
    assert F.cosine_similarity(gradient_of(lean), gradient_of(plain), dim=0) > 0.99


def test_float32(twins: Twins) -> None:
    for detector in twins:
        loss_of(detector.float(), random_images(side=128)).backward()
    assert F.cosine_similarity(*map(gradient_of, twins), dim=0) > 0.999


@pytest.mark.slow
def test_peak_memory(twins: Twins) -> None:
    images = random_images(side=192)
    plain, lean = (peak_bytes(lambda x=x: loss_of(x, images).backward()) for x in twins)
    assert lean < 0.75 * plain


def test_each_tensor_is_computed_once(twins: Twins, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[Recipe] = []
    compute = Recipe._compute
    monkeypatch.setattr(Recipe, "_compute", lambda recipe: computed.append(recipe) or compute(recipe))
    loss = loss_of(twins[1], random_images())
    assert not computed
    loss.backward()
    assert len(computed) == len(set(computed)) > 20
    assert not any(recipe.is_kept for recipe in computed)


def test_off_where_nothing_is_saved(twins: Twins, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise AssertionError

    lean = twins[1].float()
    monkeypatch.setattr(detlit.models.detector, "lean_activations", fail)
    with torch.no_grad():
        lean(random_images())
    lean.eval()(random_images())
    with pytest.raises(AssertionError):
        lean.train()(random_images())


@pytest.mark.slow
def test_off_in_captured_graphs(twins: Twins, monkeypatch: pytest.MonkeyPatch) -> None:
    lean = twins[1]
    expected = copy.deepcopy(lean)(random_images())
    monkeypatch.delattr(detlit.models.detector, "lean_activations")
    exported = torch.export.export(copy.deepcopy(lean), (random_images(),)).module()
    compiled = torch.compile(lean, backend="eager", fullgraph=True)
    for captured in (exported, compiled):
        torch.testing.assert_close(captured(random_images())[:2], expected[:2])


def test_one_value_per_channel_is_refused_as_ever(twins: Twins) -> None:
    for detector in twins:
        with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
            detector(random_images(batch_size=1, side=32))


def test_record_has_the_option() -> None:
    spec = spec_of(tiny_detector())
    assert spec["init_args"]["lean_memory"] is False
    spec["init_args"]["lean_memory"] = True
    assert spec_of(build(spec)) == spec
    assert build(spec).lean_memory


def compare_ranks(rank: int) -> None:
    twins = make_twins(tiny_detector)
    for detector in twins:
        parallel = DistributedDataParallel(detector)
        with parallel.no_sync():
            loss_of(parallel, random_images(seed=rank)).backward()
        loss_of(parallel, random_images(seed=2 + rank)).backward()
    assert_identical(*twins)


@pytest.mark.distributed
def test_distributed_data_parallel() -> None:
    run_in_processes(compare_ranks, 2)


def doubled(recipes: Recipes, x: Tensor) -> Tensor:
    output = 2 * x
    recipes.add(output, Recipe(lambda x: 2 * x, recipes.find(x)))
    return output


def test_recipes_of_recipes() -> None:
    recipes, x = Recipes(), torch.arange(6.0).view(2, 3)
    y = doubled(recipes, x)
    z = doubled(recipes, y)
    for tensor in (z, y, z[1:, ::2], z.t()):
        packed = recipes.pack(tensor)
        assert not isinstance(packed, Tensor)
        torch.testing.assert_close(unpack(packed), tensor, rtol=0, atol=0)


def test_recipe_is_shared_by_its_readers() -> None:
    recipes, x = Recipes(), torch.ones(2)
    y = doubled(recipes, x)
    first, second = recipes.pack(y), recipes.pack(y)
    assert unpack(first).data_ptr() == unpack(second).data_ptr() != y.data_ptr()
    assert not first.recipe.is_kept


def test_changed_and_unknown_tensors_are_saved_as_they_are() -> None:
    recipes, x = Recipes(), torch.ones(2)
    y = doubled(recipes, x)
    assert recipes.pack(x) is x
    z = y.add_(1)
    assert recipes.pack(z) is z


def test_address_of_a_dead_tensor_is_free() -> None:
    recipes, x = Recipes(), torch.ones(2)
    y = doubled(recipes, x)
    storage = y.untyped_storage()
    del y
    heir = torch.empty(0).set_(storage, 0, (2,))
    assert recipes.pack(heir) is heir


def test_activations_outside_of_a_detector() -> None:
    block = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.SiLU(inplace=True))
    x = torch.randn(2, 3, 8, 8)
    twin = copy.deepcopy(block)
    with lean_activations():
        output = block(x)
    output.square().sum().backward()
    twin(x).square().sum().backward()
    for ours, theirs in zip(block.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
