"""Time from raw predictions to detections on the CPU, and of modern-yolonas' where that is installed.

Run: python tests/benchmarks/postprocess.py. Both start from the same class and bin logits of three feature maps, as the
heads give them, and end with the boxes of each image after non-maximum suppression. They take turns in one process, one
thread each; time is CPU time. Their rows are compared before they are timed.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from detlit.models.heads.distribution import join_levels
from detlit.ops.anchors import make_anchor_points
from detlit.postprocess import MatrixNMS, NMSPostPredictionCallback, PostPredictionCallback
from detlit.structures import Level, RawPredictions

try:
    import modern_yolonas
    from modern_yolonas.head import NDFLHeads
    from modern_yolonas.inference.postprocess import postprocess
except ImportError:
    modern_yolonas = None

STRIDES = (8, 16, 32)
NUM_CLASSES, REG_MAX = 80, 16
NMS_THRESHOLD, TOP_K, MAX_PREDICTIONS = 0.7, 1024, 300  # 1024 is fixed in modern-yolonas
Maps = tuple[list[Tensor], list[Tensor]]
"""Class logits ``(B, 80, H, W)`` and bin logits ``(B, 68, H, W)`` of each level."""
Rows = list[tuple[Tensor, Tensor, Tensor]]
"""Boxes, scores and labels of each image."""


def make_maps(kind: str, batch_size: int, size: int) -> Maps:
    """Return logits of a ``trained`` model, which is sure of 20 objects per image, or ``early`` in training."""
    generator = torch.Generator().manual_seed(0)
    mean, deviation = {"trained": (-9.0, 1.0), "early": (-4.6, 0.7)}[kind]
    cls_maps, reg_maps = [], []
    for stride in STRIDES:
        cells = size // stride
        shape = (batch_size, NUM_CLASSES, cells, cells)
        logits = mean + deviation * torch.randn(shape, generator=generator)
        peaks = 1 + 6 * torch.rand((batch_size, 4, 1, cells, cells), generator=generator)
        if kind == "trained":
            _add_objects(logits, peaks, 20, generator)
        bins = -((torch.arange(REG_MAX + 1).view(-1, 1, 1) - peaks) ** 2) / 2
        cls_maps.append(logits)
        reg_maps.append(bins.flatten(1, 2))
    return cls_maps, reg_maps


def _add_objects(logits: Tensor, peaks: Tensor, count: int, generator: torch.Generator) -> None:
    """Raise the logits of one class, and align the boxes, in a patch of 3 x 3 cells per object."""
    cells = logits.shape[-1]
    for image in range(len(logits)):
        for _ in range(count // len(STRIDES) + 1):
            x, y = torch.randint(1, cells - 1, (2,), generator=generator).tolist()
            label = int(torch.randint(NUM_CLASSES, (1,), generator=generator))
            patch = (image, label, slice(y - 1, y + 2), slice(x - 1, x + 2))
            logits[patch] = 2 * torch.randn((3, 3), generator=generator)
            offset = torch.arange(-1, 2.0)
            for side, shift in enumerate((offset, offset[:, None], -offset, -offset[:, None])):
                peaks[image, side, 0, y - 1 : y + 2, x - 1 : x + 2] = 3 + shift


def detlit_rows(maps: Maps, callback: PostPredictionCallback) -> Rows:
    levels = tuple(Level(*x.shape[2:], stride) for x, stride in zip(maps[0], STRIDES, strict=True))
    predictions = RawPredictions(join_levels(maps[0]), join_levels(maps[1]), *make_anchor_points(levels), levels)
    return [(each["boxes"], each["scores"], each["labels"]) for each in callback(predictions)]


class GivenLogits(nn.Module):
    """Stands for one level of modern-yolonas' head: returns logits that are there already."""

    def __init__(self, cls_map: Tensor, reg_map: Tensor) -> None:
        super().__init__()
        self.maps = reg_map, cls_map

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        return self.maps


def modern_head(maps: Maps) -> Callable[[tuple[Tensor, ...]], tuple[Tensor, Tensor]]:
    """Return modern-yolonas' decoding of the maps, its own code."""
    options = [{"inter_channels": 8, "width_mult": 1.0, "first_conv_group_size": 0, "stride": s} for s in STRIDES]
    head = NDFLHeads(NUM_CLASSES, (8, 8, 8), options, reg_max=REG_MAX).eval()
    for index, level in enumerate(zip(*maps, strict=True), start=1):
        setattr(head, f"head{index}", GivenLogits(*level))
    return head


def check_rows(ours: Rows, theirs: Rows) -> int:
    """Refuse to time what does not give the same rows; return how many there are.

    Sorted by label and score. Scores are equal to the last bit but for the order of additions in the softmax of boxes.
    """
    for image, (left, right) in enumerate(zip(ours, theirs, strict=True)):
        sorted_rows = []
        for boxes, scores, labels in (left, right):
            order = sorted(range(len(scores)), key=lambda i: (int(labels[i]), -float(scores[i]), boxes[i].tolist()))
            sorted_rows.append((boxes[order], scores[order], labels[order]))
        (our_boxes, our_scores, our_labels), (boxes, scores, labels) = sorted_rows
        assert torch.equal(our_labels, labels), f"image {image}: {len(our_labels)} and {len(labels)} rows"
        torch.testing.assert_close(our_scores, scores, rtol=1e-6, atol=0)
        torch.testing.assert_close(our_boxes, boxes, rtol=0, atol=1e-3)
    return sum(len(row[1]) for row in ours)


def cpu_seconds(step: Callable[[], Rows]) -> float:
    start = time.process_time()
    step()
    return time.process_time() - start


def spread(values: list[float]) -> str:
    return "/".join(f"{value:.2f}" for value in (min(values), statistics.median(values), max(values)))


@torch.no_grad()
def main() -> None:
    """Measure, and print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if modern_yolonas is None:
        print("modern-yolonas is not installed: pip install modern-yolonas==0.5.0 to compare with it.")

    print(f"decoding and post-prediction, batch {arguments.batch_size}, {arguments.size} px, {arguments.rounds} rounds")
    print(f"{'logits':10}{'threshold':>10}{'rows':>7}{'detlit ms':>11}{'matrix ms':>11}{'modern ms':>11}  of detlit")
    results = []
    for kind in ("trained", "early"):
        maps = make_maps(kind, arguments.batch_size, arguments.size)
        for threshold in (0.01, 0.001):
            greedy = NMSPostPredictionCallback(threshold, NMS_THRESHOLD, TOP_K, MAX_PREDICTIONS)
            matrix = MatrixNMS(threshold, max_predictions=MAX_PREDICTIONS)
            steps = {"detlit": lambda: detlit_rows(maps, greedy), "matrix": lambda: detlit_rows(maps, matrix)}  # noqa: B023
            if modern_yolonas is not None:
                head = modern_head(maps)
                steps["modern"] = lambda: postprocess(*head(maps[0]), threshold, NMS_THRESHOLD, MAX_PREDICTIONS)  # noqa: B023
                check_rows(steps["detlit"](), steps["modern"]())
            rows = sum(len(row[1]) for row in steps["detlit"]())
            times: dict[str, list[float]] = {name: [] for name in steps}
            for index in range(arguments.rounds):
                for name in reversed(steps) if index % 2 else steps:
                    times[name].append(1000 * cpu_seconds(steps[name]))
            medians = {name: statistics.median(values) for name, values in times.items()}
            ratios = [a / b for a, b in zip(times.get("modern", []), times["detlit"], strict=False)]
            print(
                f"{kind:10}{threshold:10}{rows:7}{medians['detlit']:11.1f}{medians['matrix']:11.1f}"
                f"{medians.get('modern', float('nan')):11.1f}  {spread(ratios) if ratios else ''}"
            )
            results.append({"logits": kind, "threshold": threshold, "rows": rows, "ms": medians, "ratios": ratios})
    for result in results:
        result["ms"] = {name: round(value, 2) for name, value in result["ms"].items()}
        result["ratio"] = round(statistics.median(result.pop("ratios")), 2) if modern_yolonas else None
    print(json.dumps({**vars(arguments), "torch": torch.__version__, "results": results}))


if __name__ == "__main__":
    main()
