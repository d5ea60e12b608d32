"""A trained detector, quantized without training: it keeps its mAP."""

import copy
from functools import cache

import pytest
import torch
from torch import Tensor

from detlit.errors import ConfigurationError
from detlit.models import Detector
from detlit.quantization import Quantization, format_sensitivity, quantize, sensitivity
from detlit.quantization.calibration import named_quantizers
from detlit.quantization.layers import QuantizedConvolution
from detlit.quantization.ranges import Method
from detlit.quantization.sensitivity import layer_groups
from tests.shapes_detector import calibration_images, map_of, shapes_detector


@cache
def float_map() -> float:
    return map_of(shapes_detector())


def few() -> list[Tensor]:
    return [calibration_images(1)[0][:2]]


@cache
def four_bits() -> Detector:
    return quantize(shapes_detector(), calibration_images(), Quantization(weight_bits=4)).detector


def test_the_detector_is_worth_quantizing() -> None:
    assert float_map() > 0.85


@pytest.mark.parametrize("backend", ["cpu", "tensorrt"])
def test_eight_bits_cost_at_most_a_hundredth(backend: str) -> None:
    done = quantize(shapes_detector(), calibration_images(), Quantization(backend))  # type: ignore[arg-type]
    assert map_of(done.detector) == pytest.approx(float_map(), abs=0.010)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["minmax", "percentile", "mse", "entropy"])
def test_every_method_costs_at_most_a_hundredth(method: Method) -> None:
    done = quantize(shapes_detector(), calibration_images(), method=method)
    assert map_of(done.detector) == pytest.approx(float_map(), abs=0.010)


def test_the_detector_given_is_not_changed() -> None:
    detector = shapes_detector()
    before = copy.deepcopy(detector.state_dict())
    quantize(detector, calibration_images(1))
    assert detector.quantization is None
    assert detector.fused is None
    assert all(torch.equal(value, before[name]) for name, value in detector.state_dict().items())


def test_every_layer_is_ranked_once_and_nothing_is_left_off() -> None:
    detector = quantize(shapes_detector(), calibration_images(1)).detector
    groups = layer_groups(detector)
    parts = [id(part) for group in groups.values() for part in group]
    rounding = [part for part in detector.modules() if isinstance(part, QuantizedConvolution)]
    assert len(parts) == len(set(parts)) == len(rounding) + len(named_quantizers(detector))
    ranking = sensitivity(detector, few())
    assert {row.name for row in ranking} == set(groups)
    assert [row.value for row in ranking] == sorted(row.value for row in ranking)
    assert all(part.weight_enabled for part in rounding)
    assert all(part.enabled for part in named_quantizers(detector).values())


def test_the_ranking_finds_the_layer_that_hurts() -> None:
    """One convolution with a weight that dwarfs the others of its channels keeps next to nothing of them."""
    detector = shapes_detector().fuse()
    victim = detector.neck.up1.reduce_concat.conv
    with torch.no_grad():
        victim.weight[:, 0] = 0
        victim.weight[:, 0, 0, 0] = 60 * victim.weight.abs().amax((1, 2, 3))
    ranking = sensitivity(quantize(detector, few()).detector, few())
    assert ranking[0].name == "neck.up1.reduce_concat"
    assert format_sensitivity(ranking, worst=1).splitlines()[1].split()[0] == "neck.up1.reduce_concat"


def test_layers_can_be_ranked_by_a_score() -> None:
    detector = quantize(shapes_detector(), calibration_images(1)).detector
    stem = detector.backbone.stem.conv
    ranking = sensitivity(detector, [], score=lambda detector: 0.5 - 0.25 * detector.backbone.stem.conv.weight_enabled)
    assert (ranking[0].name, ranking[0].value) == ("backbone.stem", 0.25)
    assert {row.value for row in ranking[1:]} == {0.0}
    assert stem.weight_enabled


def test_the_most_sensitive_layers_can_stay() -> None:
    done = quantize(shapes_detector(), few(), skip_sensitive=3)
    assert len(done.ranking) > 60
    kept = done.detector.quantization.skip  # type: ignore[union-attr]
    assert kept == tuple(row.name for row in done.ranking[:3])


def test_layers_are_left_out_until_the_drop_is_small() -> None:
    """With four bits; the quick score is how close a detector comes to the float one."""
    images = few()[0]
    plain = shapes_detector()
    with torch.no_grad():
        expected = plain(images).cls_logits

    def closeness(detector: Detector) -> float:
        with torch.no_grad():
            return -float((detector(images).cls_logits - expected).abs().mean())

    quantization = Quantization(weight_bits=4, skip=["backbone.stem"])
    worst = closeness(quantize(plain, [images], quantization).detector)
    done = quantize(plain, [images], quantization, max_drop=-0.5 * worst, score=closeness)
    assert closeness(done.detector) >= 0.5 * worst
    kept = done.detector.quantization.skip  # type: ignore[union-attr]
    assert kept[0] == "backbone.stem"
    assert 1 < len(kept) < len(done.ranking)
    with pytest.raises(ConfigurationError, match="max_drop=0 is out of reach: the score stays lower with"):
        quantize(plain, [images], quantization, max_drop=0, score=closeness)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"max_drop": 0.1}, "max_drop needs a score"), ({"skip_sensitive": -1}, "skip_sensitive=-1 is no number")],
)
def test_arguments_that_make_no_sense_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        quantize(shapes_detector(), calibration_images(1), **arguments)  # type: ignore[arg-type]


def test_four_bits_hurt_which_is_what_training_is_for() -> None:
    assert map_of(four_bits()) < float_map() - 0.03
