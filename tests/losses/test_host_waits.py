"""How often a training step makes the host wait for the device: each wait lets a GPU run dry."""

import warnings
from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from detlit.losses import PPYoloELoss
from detlit.structures import RawPredictions
from tests.fake_predictions import make_batch, make_predictions, make_targets, with_grad

STATIC = pytest.mark.parametrize("static", [False, True], ids=["task_aligned", "atss"])
COUNTS = pytest.mark.parametrize("counts", [(30, 0, 7), (0, 0, 0)], ids=["objects", "all-empty"])

WAITING = {"nonzero", "_local_scalar_dense", "item", "is_nonzero", "masked_select", "equal", "unique2", "bincount"}


class CountWaits(TorchDispatchMode):
    """Counts operations whose result a GPU would have to tell the host, in ``waits``."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        by_mask = name.startswith("index") and any(
            isinstance(x, torch.Tensor) and x.dtype in (torch.bool, torch.uint8)
            for argument in args[1:2]
            if isinstance(argument, (list, tuple))
            for x in argument
        )
        repeats = name == "repeat_interleave" and (kwargs or {}).get("output_size") is None
        if name in WAITING or by_mask or repeats:
            self.waits[name] += 1
        return func(*args, **(kwargs or {}))


def test_the_counter_counts() -> None:
    values = torch.arange(4)
    with CountWaits() as counter:
        values[values > 1].sum().item()
        values.tolist()
        torch.repeat_interleave(values)
    assert sum(counter.waits.values()) >= 3


@STATIC
@COUNTS
def test_a_step_waits_at_most_twice(static: bool, counts: tuple[int, ...]) -> None:
    predictions, batch = with_grad(make_predictions(96, batch_size=3)), make_batch(make_targets(counts, 96), 96)
    loss = PPYoloELoss(use_static_assigner=static)
    with CountWaits() as counter:
        loss(predictions, batch).total.backward()
    assert sum(counter.waits.values()) <= 2, counter.waits


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@STATIC
@COUNTS
def test_a_step_on_a_gpu_waits_at_most_twice(static: bool, counts: tuple[int, ...]) -> None:
    cpu = make_predictions(96, batch_size=3)
    predictions = with_grad(RawPredictions(*(x.cuda() for x in cpu[:4]), cpu.levels))
    batch = make_batch(make_targets(counts, 96), 96).pin_memory().to("cuda", non_blocking=True)
    loss = PPYoloELoss(use_static_assigner=static)
    expected = loss(cpu, batch.to("cpu"))
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            output = loss(predictions, batch)
            output.total.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert sum("synchronizing" in str(warning.message) for warning in caught) <= 2
    torch.testing.assert_close(output.total.cpu(), expected.total, rtol=1e-5, atol=0)
