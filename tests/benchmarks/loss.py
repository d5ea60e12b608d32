"""Time and memory of the PP-YOLOE loss, forward and backward, and of modern-yolonas' where that is installed.

Run: python tests/benchmarks/loss.py. Given logits as trained ones are, 640 px (8400 anchor points), 80 classes. The
implementations take turns in one process, one thread each. Time is CPU time, which a busy machine changes little.
Memory is the peak of the allocator beyond what was there before, including the two gradients, which have to be made.

That the loss is right is checked here against the slow twin on a small batch, assignment and all. modern-yolonas' is
another function: where several objects want an anchor point it asks only these, and it sums the scores before it
settles that. Its value is printed beside.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from sys import path

import torch
from memory import peak_bytes

from detlit.losses import PPYoloELoss
from detlit.ops.anchors import make_anchor_points
from detlit.ops.boxes import decode_boxes
from detlit.structures import Level, RawPredictions, Target

path.append(str(Path(__file__).parents[2]))
from tests.fake_predictions import make_predictions, make_targets, with_grad
from tests.reference import ppyoloe as reference

try:
    import modern_yolonas
    from modern_yolonas.training.loss import PPYoloELoss as ModernLoss
except ImportError:
    modern_yolonas = None

SIZE = 640
CASES = ((16, 5), (16, 20), (16, 100), (16, 500), (32, 500))
COMPARED = 100
"""Objects per image up to which modern-yolonas takes part: the memory of its dense tensors grows with them."""
Step = Callable[[], float]


def trained_predictions(batch_size: int, targets: list[Target]) -> RawPredictions:
    """Return logits of a detector that has learned something: inside an object its box and class are about right."""
    levels = tuple(Level(SIZE // stride, SIZE // stride, stride) for stride in (8, 16, 32))
    points, strides = make_anchor_points(levels)
    cls_logits = torch.randn(batch_size, len(points), 80) - 4.5
    distances = 1 + 5 * torch.rand(batch_size, len(points), 4)
    for i, target in enumerate(targets):
        for box, label in zip(target["boxes"], target["labels"], strict=True):
            sides = torch.cat((points - box[:2], box[2:] - points), dim=1) / strides
            near = (sides.amin(1) > 0) & (sides.amax(1) < 15)
            distances[i, near] = (sides[near] + 0.5 * torch.randn_like(sides[near])).clamp(0, 15)
            cls_logits[i, near, label] = torch.randn(int(near.sum()))
    # No sharper than networks are: probabilities that underflow would slow down every implementation.
    reg_logits = (-((torch.arange(17) - distances[..., None]) ** 2)).clamp(min=-20).flatten(2)
    return with_grad(RawPredictions(cls_logits, reg_logits, points, strides, levels))


def random_targets(batch_size: int, count: int) -> list[Target]:
    """Return boxes with sides between 16 and 256 pixels, small ones most."""
    targets = []
    for _ in range(batch_size):
        sizes = 16 * 16 ** torch.rand(count, 2)
        top_left = torch.rand(count, 2) * (SIZE - sizes)
        boxes = torch.cat((top_left, top_left + sizes), dim=1)
        targets.append(Target(boxes=boxes, labels=torch.randint(80, (count,))))
    return targets


def detlit_step(predictions: RawPredictions, targets: list[Target], static: bool) -> Step:
    loss = PPYoloELoss(use_static_assigner=static)

    def step() -> float:
        predictions.cls_logits.grad = predictions.reg_logits.grad = None
        total = loss(predictions, targets).total
        total.backward()
        return float(total.detach())

    return step


def modern_step(predictions: RawPredictions, targets: list[Target], static: bool) -> Step:
    """Return a step of modern-yolonas, which decodes all boxes and scores, with gradients, for its loss."""
    rows = []
    for index, target in enumerate(targets):
        x1, y1, x2, y2 = (target["boxes"] / SIZE).unbind(1)
        head = (torch.full_like(x1, index), target["labels"].float())
        rows.append(torch.stack((*head, (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1), dim=1))
    loss, table = ModernLoss(static_assigner_epochs=1), torch.cat(rows)
    points, strides = predictions.anchor_points, predictions.strides
    squares = torch.cat((points - 2.5 * strides, points + 2.5 * strides), dim=1)
    sizes = [level.height * level.width for level in predictions.levels]

    def step() -> float:
        cls_logits, reg_logits = predictions.cls_logits, predictions.reg_logits
        cls_logits.grad = reg_logits.grad = None
        decoded = decode_boxes(reg_logits, points, strides), cls_logits.sigmoid()
        raw = cls_logits, reg_logits, squares, points, sizes, strides
        total, _ = loss((decoded, raw), table, epoch=0 if static else 1)
        total.backward()
        return float(total.detach())

    return step


def check_against_slow_twin(static: bool) -> None:
    """Refuse to time a loss that is not right."""
    predictions, targets = make_predictions(96, dtype=torch.float64), make_targets([12, 5], 96)
    ours = PPYoloELoss(use_static_assigner=static)(predictions, targets).terms
    slow = reference.terms(predictions, targets, static)
    torch.testing.assert_close(torch.stack(list(ours.values())).tolist(), slow, rtol=1e-9, atol=0)


def cpu_seconds(step: Step) -> float:
    start = time.process_time()
    step()
    return time.process_time() - start


def measure(steps: dict[str, Step], rounds: int) -> dict[str, list[float]]:
    """Return the CPU seconds of every step in every round; every other round runs backwards."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for index in range(rounds):
        for name in list(steps)[:: -1 if index % 2 else 1]:
            times[name].append(cpu_seconds(steps[name]))
    return times


def run_case(batch_size: int, count: int, static: bool, rounds: int, compare: bool) -> dict[str, float | str]:
    """Measure one case and print its line."""
    torch.manual_seed(0)
    targets = random_targets(batch_size, count)
    predictions = trained_predictions(batch_size, targets)
    steps = {"detlit": detlit_step(predictions, targets, static)}
    if compare and count <= COMPARED:
        steps["modern"] = modern_step(predictions, targets, static)
    losses = {name: step() for name, step in steps.items()}  # also the warm-up
    peaks = {}
    for name, step in steps.items():
        predictions.cls_logits.grad = predictions.reg_logits.grad = None  # not to be freed while memory is counted
        peaks[name] = peak_bytes(step) / 2**20
    times = measure(steps, rounds)

    gradients = (predictions.cls_logits.numel() + predictions.reg_logits.numel()) * 4 / 2**20
    ours = statistics.median(times["detlit"])
    result = {
        "case": f"{'atss' if static else 'tal'} b{batch_size} n={count}",
        "ms": round(ours * 1e3, 1),
        "us_per_object": round(ours * 1e6 / (batch_size * count), 1),
        "extra_mib": round(peaks["detlit"] - gradients, 1),
        "peak_mib": round(peaks["detlit"], 1),
        "loss": round(losses["detlit"], 6),
    }
    line = "{case:18}{ms:8.1f}{us_per_object:11.1f}{peak_mib:9.1f}{extra_mib:10.1f}{loss:12.6f}".format(**result)
    if "modern" in steps:
        ratios = [theirs / mine for theirs, mine in zip(times["modern"], times["detlit"], strict=True)]
        spread = "/".join(f"{x:.1f}" for x in (min(ratios), statistics.median(ratios), max(ratios)))
        result |= {"modern_ratio": spread, "modern_peak_mib": round(peaks["modern"]), "modern_loss": losses["modern"]}
        line += f"{statistics.median(times['modern']) * 1e3:10.1f}{spread:>18}"
        line += f"{peaks['modern']:9.0f}{losses['modern']:12.6f}"
    print(line, flush=True)
    return result


def main() -> None:
    """Check, measure, and print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--assigners", nargs="+", choices=("tal", "atss"), default=["tal", "atss"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if modern_yolonas is None:
        print("modern-yolonas is not installed: pip install modern-yolonas==0.5.0 to compare with it.")
    print("extra: peak without the two gradients; ratio: modern-yolonas' time over detlit's, min/median/max")
    ours, theirs = ("ms", "us/object", "peak MiB", "extra MiB", "loss"), ("ms", "ratio", "peak MiB", "loss")
    print("{:18}{:>8}{:>11}{:>9}{:>10}{:>12}".format("", *ours) + "{:>10}{:>18}{:>9}{:>12}".format(*theirs))
    results = []
    for name in arguments.assigners:
        check_against_slow_twin(name == "atss")
        for batch_size, count in CASES:
            results.append(run_case(batch_size, count, name == "atss", arguments.rounds, modern_yolonas is not None))
    print(json.dumps({"torch": torch.__version__, "rounds": arguments.rounds, "results": results}))


if __name__ == "__main__":
    main()
