"""Ranges of activations from images."""

from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from detlit.errors import ConfigurationError
from detlit.models import Detector
from detlit.quantization import Quantization, calibrate, calibration_batches, needs_calibration
from detlit.quantization.calibration import named_quantizers
from detlit.quantization.histogram import Histogram, merge_over_ranks
from detlit.quantization.report import LayerReport, format_report, write_report
from detlit.structures import Preprocessing
from tests.processes import run_in_processes
from tests.tiny import tiny_detector


class Squares:
    """Images of one grey level, the index, and 20 by 10 pixels."""

    def __init__(self, length: int = 50) -> None:
        self.length = length
        self.loaded: list[int] = []

    def __len__(self) -> int:
        return self.length

    def load_image(self, index: int) -> NDArray[np.uint8]:
        self.loaded.append(index)
        return np.full((20, 10, 3), index, dtype=np.uint8)


def quantized(seed: int = 0) -> Detector:
    torch.manual_seed(seed)
    return tiny_detector().eval().quantize(Quantization())


def noise(*seeds: int) -> Iterator[Tensor]:
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        yield torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=generator)


def ranges(detector: Detector) -> dict[str, list[float]]:
    return {name: [float(end) for end in part.range] for name, part in named_quantizers(detector).items()}


def test_batches_are_as_many_as_asked_for_and_letterboxed() -> None:
    squares, preprocessing = Squares(), Preprocessing(size=(64, 64), pad_value=7)
    batches = list(calibration_batches(squares, preprocessing, num_batches=3, batch_size=4))
    assert [tuple(batch.shape) for batch in batches] == [(4, 3, 64, 64)] * 3
    assert len(squares.loaded) == len(set(squares.loaded)) == 12
    assert batches[0].dtype == torch.uint8
    assert int(batches[0][0, 0, 0, 0]) == 7
    assert int(batches[0][0, 0, 32, 32]) == squares.loaded[0]


def test_processes_take_different_images() -> None:
    taken = []
    for rank in range(2):
        squares = Squares()
        list(
            calibration_batches(squares, Preprocessing((32, 32)), num_batches=2, batch_size=5, rank=rank, world_size=2)
        )
        taken.append(set(squares.loaded))
    assert len(taken[0] | taken[1]) == 20


def test_few_images_are_taken_again_and_no_batch_is_refused() -> None:
    squares = Squares(3)
    list(calibration_batches(squares, Preprocessing((32, 32)), num_batches=2, batch_size=4))
    assert sorted(set(squares.loaded)) == [0, 1, 2]
    with pytest.raises(ConfigurationError, match="0 batches of 4 images leave none to calibrate on"):
        list(calibration_batches(squares, Preprocessing((32, 32)), num_batches=0, batch_size=4))


def test_every_batch_is_seen_once_and_counted() -> None:
    detector, calls = quantized(), []
    detector.register_forward_hook(lambda *_: calls.append(1))
    calibrate(detector, noise(1, 2, 3))
    assert len(calls) == 3
    assert not needs_calibration(detector)
    assert all(part.histogram is None for part in named_quantizers(detector).values())


def test_minmax_ranges_are_those_of_the_float_detector() -> None:
    detector = quantized()
    calibrate(detector, noise(1), "minmax")
    torch.manual_seed(0)
    plain = tiny_detector().eval().fuse()
    seen: dict[str, Tensor] = {}
    plain.backbone.stem.register_forward_hook(lambda part, inputs, output: seen.update(stem=output))
    with torch.no_grad():
        plain(next(noise(1)))
    low, high = ranges(detector)["backbone.stem.act.quantizer"]
    assert low == 0.0
    assert high == pytest.approx(float(seen["stem"].max()), rel=1e-5)


def test_methods_choose_different_ranges() -> None:
    chosen = {}
    for method in ("minmax", "percentile", "mse", "entropy"):
        detector = quantized()
        calibrate(detector, noise(1), method, percentile=99.0)  # type: ignore[arg-type]
        chosen[method] = sum(high - low for low, high in ranges(detector).values())
    assert len(set(chosen.values())) == 4
    assert chosen["minmax"] == max(chosen.values())


def test_modes_and_rounding_are_as_before() -> None:
    detector = quantized().train()
    detector.backbone.eval()
    before = {name: part.training for name, part in detector.named_modules()}
    statistics = detector.backbone.stem.post_bn.running_mean.clone()
    calibrate(detector, noise(1))
    assert {name: part.training for name, part in detector.named_modules()} == before
    assert torch.equal(detector.backbone.stem.post_bn.running_mean, statistics)
    assert all(part.enabled for part in named_quantizers(detector).values())


@pytest.mark.parametrize(("method", "percentile"), [("median", 99.0), ("percentile", 0.999)])
def test_a_method_that_makes_no_sense_is_refused_before_images_are_read(method: Any, percentile: float) -> None:
    batches = noise(1)
    with pytest.raises(ConfigurationError, match=r"is unknown: choose one of minmax|keeps too little"):
        calibrate(quantized(), batches, method, percentile=percentile)
    assert next(batches).shape == (2, 3, 64, 64)


def test_nothing_to_look_at_and_nothing_to_calibrate_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="no image to calibrate on"):
        calibrate(quantized(), [])
    with pytest.raises(ConfigurationError, match="no quantized activation to calibrate"):
        calibrate(tiny_detector(), noise(1))


def test_the_report_has_every_rounded_tensor(tmp_path: Any) -> None:
    detector = quantized()
    reports = calibrate(detector, noise(1))
    assert len({report.name for report in reports if report.tensor == "activation"}) == len(named_quantizers(detector))
    stem = next(report for report in reports if report.name == "backbone.stem.conv")
    assert (stem.tensor, stem.clipped) == ("weight", 0.0)
    assert 30 < stem.sqnr < 60
    write_report(reports, tmp_path / "q.csv")
    assert len((tmp_path / "q.csv").read_text().splitlines()) == len(reports) + 1


def test_the_table_shows_the_worst_first() -> None:
    rows = [LayerReport(name, "weight", -1, 1, 0.5, ratio) for name, ratio in (("a", 40.0), ("b", 20.0), ("c", 30.0))]
    lines = format_report(rows, worst=2).splitlines()
    assert [line.split()[0] for line in lines] == ["layer", "b", "c"]
    assert lines[1].split() == ["b", "weight", "-1.000", "1.000", "5.00e-01", "20.0"]
    assert [line[0] for line in format_report(rows).splitlines()[1:]] == ["a", "b", "c"]


def check_ranks(rank: int) -> None:
    histogram = Histogram()
    histogram.collect(torch.tensor([[0.0, 1.0], [-70.0, 5.0]][rank]))
    merge_over_ranks([histogram])
    whole = Histogram()
    whole.collect(torch.tensor([0.0, 1.0, -70.0, 5.0]))
    assert torch.equal(histogram.counts, whole.counts)
    assert (histogram.low, histogram.high, histogram.zeros) == (-70.0, 5.0, 1)
    detector = quantized()
    calibrate(detector, noise(rank, rank + 10))
    together = quantized()
    expected = dict(ranges(detector))
    with patch("detlit.quantization.calibration.merge_over_ranks"):
        calibrate(together, noise(0, 10, 1, 11))
    assert ranges(together) == expected


@pytest.mark.distributed
def test_processes_choose_what_one_would_for_all_images() -> None:
    run_in_processes(check_ranks, 2)
