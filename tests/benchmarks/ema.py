"""Time of one update of the moving average of YOLO-NAS S on the CPU, and of modern-yolonas' where that is installed.

Run: python tests/benchmarks/ema.py. All follow the same tensors, detlit's YOLO-NAS S, but for the last: modern-yolonas'
own one, which holds convolutions that nothing uses and averages them too. They take turns in one process, one thread
each; time is CPU time. The averages are compared before they are timed.
"""

import argparse
import copy
import json
import math
import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from detlit.models import yolo_nas_s
from detlit.optim import WeightAverage

try:
    import modern_yolonas
    from modern_yolonas.training.callbacks import EMACallback
except ImportError:
    modern_yolonas = None

PLAIN = "detlit"
DECAY, WARMUP_STEPS = 0.9997, 2000
"""The decay of update ``n`` is ``DECAY * (1 - exp(-n / WARMUP_STEPS))``, that of modern-yolonas."""


class Detlit:
    """detlit's average."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.average, self.updates = module, WeightAverage(module), 0

    def update(self) -> None:
        self.updates += 1
        self.average.update(DECAY * (1 - math.exp(-self.updates / WARMUP_STEPS)))

    def state(self) -> dict[str, Tensor]:
        return self.average.averaged(self.module.state_dict())


class Torch:
    """torch's average of parameters and buffers in one call per device and dtype; its decay cannot rise."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.averaged = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(DECAY), use_buffers=True)

    def update(self) -> None:
        self.averaged.update_parameters(self.module)


class Modern:
    """modern-yolonas' callback, called as its Trainer would."""

    def __init__(self, module: nn.Module) -> None:
        self.pl_module, self.callback = SimpleNamespace(model=module), EMACallback(DECAY, WARMUP_STEPS)
        self.callback.on_fit_start(None, self.pl_module)

    def update(self) -> None:
        self.callback.on_train_batch_end(None, self.pl_module, None, None, 0)

    def state(self) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.callback.ema_model.state_dict()
        return state


def check_averages(module: nn.Module, *variants: Detlit | Modern) -> None:
    """Refuse to time what does not compute the same, over steps that move the weights as training would."""
    with torch.no_grad():
        for _ in range(5):
            for value in [*module.parameters(), *(b for b in module.buffers() if b.is_floating_point())]:
                value.add_(torch.randn_like(value), alpha=0.01)
            for variant in variants:
                variant.update()
    ours, *others = (variant.state() for variant in variants)
    for theirs in others:
        assert theirs.keys() == ours.keys()
        for name, value in theirs.items():
            if value.is_floating_point():
                torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=1e-6, msg=name)


def cpu_milliseconds(update: Callable[[], None]) -> float:
    start = time.process_time()
    update()
    return 1000 * (time.process_time() - start)


def spread(values: list[float]) -> str:
    return "/".join(f"{value:.2f}" for value in (min(values), statistics.median(values), max(values)))


def main() -> None:
    """Measure, and print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = yolo_nas_s()
    ours = Detlit(module)
    variants: dict[str, Detlit | Torch | Modern] = {PLAIN: ours, "torch AveragedModel": Torch(module)}
    if modern_yolonas is None:
        print("modern-yolonas is not installed: pip install modern-yolonas==0.5.0 to compare with it.")
        check_averages(module, ours)
    else:
        modern = Modern(module)
        check_averages(module, ours, modern)
        name = f"modern-yolonas {modern_yolonas.__version__}"
        variants |= {name: modern, f"{name}, its model": Modern(copy.deepcopy(modern_yolonas.yolo_nas_s()))}
    for variant in variants.values():
        variant.update()

    times: dict[str, list[float]] = {name: [] for name in variants}
    for index in range(arguments.rounds):
        for name in reversed(variants) if index % 2 else variants:
            times[name].append(cpu_milliseconds(variants[name].update))

    size = sum(value.numel() for value in module.state_dict().values()) / 1e6
    print(f"YOLO-NAS S, {len(module.state_dict())} tensors, {size:.1f} M numbers, {arguments.rounds} rounds")
    print(f"{'':32}{'CPU ms':>8}  of detlit, min/median/max")
    results = {}
    for name, values in times.items():
        ratios = [theirs / plain for theirs, plain in zip(values, times[PLAIN], strict=True)]
        print(f"{name:32}{statistics.median(values):8.2f}  {spread(ratios)}")
        results[name] = {
            "cpu_ms": round(statistics.median(values), 3),
            "time_ratio": round(statistics.median(ratios), 2),
        }
    print(json.dumps({**vars(arguments), "torch": torch.__version__, "results": results}))


if __name__ == "__main__":
    main()
