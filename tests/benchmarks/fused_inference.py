"""Time of inference with a fused detector against the unfused one, YOLO-NAS S on the CPU.

Run: python tests/benchmarks/fused_inference.py. All variants take turns in one process, one thread each unless told
otherwise; time is CPU time. Their outputs are compared before they are timed.
"""

import argparse
import copy
import json
import statistics
import time
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from detlit.models import Detector, yolo_nas_s
from detlit.ops.boxes import decode_boxes


class Variant:
    """A detector in evaluation mode, with the memory format and precision it computes in."""

    def __init__(self, detector: Detector, *, channels_last: bool = False, bf16: bool = False) -> None:
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.detector = copy.deepcopy(detector).to(memory_format=self.memory_format)
        self.bf16 = bf16

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return boxes in pixels and scores."""
        with torch.autocast("cpu", torch.bfloat16) if self.bf16 else nullcontext():
            predictions = self.detector(images.contiguous(memory_format=self.memory_format))
        boxes = decode_boxes(predictions.reg_logits.float(), predictions.anchor_points, predictions.strides)
        return boxes, predictions.cls_logits.float().sigmoid()


def make_detector() -> Detector:
    """Return YOLO-NAS S whose normalizations are no identity, as after training."""
    torch.manual_seed(0)
    detector = yolo_nas_s()
    with torch.no_grad():
        for _ in range(3):  # moves the running statistics
            detector(torch.randint(0, 256, (2, 3, 128, 128), dtype=torch.uint8))
        for module in detector.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.9, 1.1)
                module.bias.normal_(std=0.1)
    return detector.eval()


def check_outputs(variants: dict[str, Variant], images: Tensor) -> None:
    """Refuse to time what does not compute the same; also the warm-up."""
    boxes, scores = variants["unfused"](images)
    for name, variant in variants.items():
        ours = variant(images)
        if variant.bf16:
            continue  # 8 bits of mantissa are another result; what it costs in mAP needs a trained detector
        assert (ours[0] - boxes).abs().max() < 5e-3, name
        assert (ours[1] - scores).abs().max() < 1e-4, name


def main() -> None:
    """Measure, and print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    unfused = make_detector()
    partial, full = copy.deepcopy(unfused).fuse(), copy.deepcopy(unfused).fuse(full=True)
    variants = {
        "unfused": Variant(unfused),
        "unfused channels_last": Variant(unfused, channels_last=True),
        "partial": Variant(partial),
        "full": Variant(full),
        "full channels_last": Variant(full, channels_last=True),
        "full channels_last bf16": Variant(full, channels_last=True, bf16=True),
    }
    images = torch.randint(0, 256, (arguments.batch_size, 3, arguments.size, arguments.size), dtype=torch.uint8)
    times: dict[str, list[float]] = {name: [] for name in variants}
    with torch.inference_mode():
        check_outputs(variants, images)
        for _ in range(arguments.rounds):
            for name, variant in variants.items():
                start = time.process_time()
                variant(images)
                times[name].append(time.process_time() - start)

    print(f"YOLO-NAS S, batch {arguments.batch_size}, {arguments.size} px, {arguments.rounds} rounds")
    print(f"{'':26}{'CPU ms':>8}  times as fast as unfused, min/median/max")
    speedups = {}
    for name, values in times.items():
        ratios = [base / ours for base, ours in zip(times["unfused"], values, strict=True)]
        speedups[name] = round(statistics.median(ratios), 3)
        spread = "/".join(f"{ratio:.2f}" for ratio in (min(ratios), speedups[name], max(ratios)))
        print(f"{name:26}{1000 * statistics.median(values):8.1f}  {spread}")
    print(json.dumps({**vars(arguments), "torch": torch.__version__, "speedups": speedups}))


if __name__ == "__main__":
    main()
