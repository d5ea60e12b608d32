"""Time and memory of a training step of YOLO-NAS S on the CPU, and of modern-yolonas' where that is installed.

Run: python tests/benchmarks/train_step.py --size 320 --batch_size 4. All variants start from the same weights and take
turns in one process, one thread each unless told otherwise; the learning rate is 0, so that every step does the same
work. A step is forward, loss, backward and AdamW. Time is CPU time, which a busy machine changes little. Memory is the
peak of the allocator beyond weights and optimizer state.
"""

import argparse
import copy
import json
import math
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
from memory import peak_bytes
from torch import Tensor, nn

from detlit.losses import PPYoloELoss
from detlit.models import Detector, yolo_nas_s
from detlit.models.super_gradients import from_super_gradients
from detlit.structures import Target

try:
    import modern_yolonas
    from modern_yolonas.training.loss import PPYoloELoss as ModernLoss
except ImportError:
    modern_yolonas = None

BOXES_PER_IMAGE = 8
PLAIN = "detlit"
Step = Callable[[], Tensor]


def make_images(batch_size: int, size: int) -> Tensor:
    return torch.randint(0, 256, (batch_size, 3, size, size), dtype=torch.uint8)


def make_targets(batch_size: int, size: int) -> list[Target]:
    targets = []
    for _ in range(batch_size):
        top_left = torch.rand(BOXES_PER_IMAGE, 2) * size * 0.6
        boxes = torch.cat((top_left, top_left + size * (0.1 + 0.3 * torch.rand(BOXES_PER_IMAGE, 2))), dim=1)
        targets.append(Target(boxes=boxes, labels=torch.randint(0, 80, (BOXES_PER_IMAGE,))))
    return targets


def make_step(model: nn.Module, loss_of: Callable[[nn.Module], Tensor]) -> Step:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, foreach=True)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def detlit_step(detector: Detector, images: Tensor, targets: list[Target], **options: bool) -> Step:
    """Return the training step of a copy of the detector, with channels_last, lean_memory and bf16 as asked for."""
    detector = copy.deepcopy(detector)
    detector.lean_memory = options.get("lean_memory", False)
    if options.get("channels_last", False):
        detector = detector.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    loss = PPYoloELoss()

    def loss_of(model: nn.Module) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16) if options.get("bf16") else nullcontext():
            predictions = model(images)
        return loss(predictions, targets).total

    return make_step(detector, loss_of)


def modern_step(model: nn.Module, images: Tensor, targets: list[Target]) -> Step:
    rows = []
    for index, target in enumerate(targets):
        x1, y1, x2, y2 = (target["boxes"] / images.shape[-1]).unbind(1)
        head = (torch.full_like(x1, index), target["labels"].float())
        rows.append(torch.stack((*head, (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1), dim=1))
    loss, scaled, table = ModernLoss(static_assigner_epochs=0), images / 255, torch.cat(rows)
    return make_step(model, lambda model: loss(model(scaled), table)[0])


def make_steps(batch_size: int, size: int) -> dict[str, Step]:
    """Return the step of every variant, all with the same weights and data."""
    torch.manual_seed(0)
    detector, images, targets = yolo_nas_s(), make_images(batch_size, size), make_targets(batch_size, size)
    steps = {}
    if modern_yolonas is not None:
        modern = modern_yolonas.yolo_nas_s()
        detector.load_state_dict(from_super_gradients(modern.state_dict()))
        steps[f"modern-yolonas {modern_yolonas.__version__}"] = modern_step(modern, images, targets)
    variants = {
        PLAIN: {},
        "detlit lean": {"lean_memory": True},
        "detlit channels_last": {"channels_last": True},
        "detlit channels_last lean": {"channels_last": True, "lean_memory": True},
        "detlit channels_last bf16": {"channels_last": True, "bf16": True},
    }
    for name, options in variants.items():
        steps[name] = detlit_step(detector, images, targets, **options)
    return steps


def check_losses(steps: dict[str, Step]) -> None:
    """Refuse to time what does not compute the same loss; also the warm-up.

    Lean memory changes nothing, another memory format the order of additions. bf16 rounds, and the assigner of
    modern-yolonas settles anchors that several boxes want in another way.
    """
    losses = {name: float(step()) for name, step in steps.items()}
    for name, loss in losses.items():
        assert math.isclose(loss, losses[PLAIN], rel_tol=2e-2 if "bf16" in name or "modern" in name else 1e-3), losses
        twin = losses.get(name.removesuffix(" lean"), loss)
        assert math.isclose(loss, twin, rel_tol=5e-3 if "bf16" in name else 1e-5), losses


def cpu_seconds(step: Step) -> float:
    start = time.process_time()
    step()
    return time.process_time() - start


def spread(values: list[float]) -> str:
    return "/".join(f"{value:.2f}" for value in (min(values), statistics.median(values), max(values)))


def measure(steps: dict[str, Step], rounds: int) -> dict[str, list[float]]:
    """Return the CPU seconds of every step in every round; every other round runs backwards."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for index in range(rounds):
        for name in reversed(steps) if index % 2 else steps:
            times[name].append(cpu_seconds(steps[name]))
    return times


def main() -> None:
    """Measure, and print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="+", metavar="VARIANT", help="names in the table, to compare with detlit")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if modern_yolonas is None:
        print("modern-yolonas is not installed: pip install modern-yolonas==0.5.0 to compare with it.")

    steps = make_steps(arguments.batch_size, arguments.size)
    chosen = {PLAIN, *(arguments.only or steps)}
    steps = {name: step for name, step in steps.items() if name in chosen}
    check_losses(steps)
    peaks = {name: peak_bytes(step) / 2**20 for name, step in steps.items()}
    times = measure(steps, arguments.rounds)

    print(f"YOLO-NAS S, batch {arguments.batch_size}, {arguments.size} px, {arguments.rounds} rounds")
    print(f"{'':32}{'CPU s':>8}  {'of detlit, min/median/max':28}{'peak MiB':>8}{'of detlit':>11}")
    results = {}
    for name, values in times.items():
        seconds, memory = statistics.median(values), peaks[name] / peaks[PLAIN]
        ratios = [ours / plain for ours, plain in zip(values, times[PLAIN], strict=True)]
        print(f"{name:32}{seconds:8.3f}  {spread(ratios):28}{peaks[name]:8.0f}{memory:11.2f}")
        results[name] = {
            "cpu_seconds": round(seconds, 4),
            "time_ratio": round(statistics.median(ratios), 3),
            "peak_mib": round(peaks[name]),
            "peak_ratio": round(memory, 3),
        }
    print(json.dumps({**vars(arguments), "torch": torch.__version__, "results": results}))


if __name__ == "__main__":
    main()
