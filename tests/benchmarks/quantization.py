"""Size, speed and integer operators of quantized detectors in ONNX Runtime and OpenVINO, against their float files.

Run: python tests/benchmarks/quantization.py --models yolo_nas_s --size 640. Weights are random, which costs the same
time as trained ones and says nothing about accuracy: that is in tests/export and tests/quantization. All files take
turns in one process; time is CPU time, of one thread unless told otherwise. The processor must know VNNI for the speed.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detlit.export import OnnxSession, OpenVinoSession, export_onnx
from detlit.export.verify import count_operators
from detlit.models import Detector, presets
from detlit.quantization import quantize
from detlit.structures import Preprocessing

Run = Callable[[], Any]


def make_detector(name: str, size: int) -> Detector:
    """Return a detector whose activations have the spread that training gives them: running statistics of noise."""
    torch.manual_seed(0)
    detector: Detector = getattr(presets, name)(80, Preprocessing(size=(size, size)))
    with torch.no_grad():
        for _ in range(3):
            detector.train()(make_images(size // 2))
    return detector.eval()


def make_images(size: int) -> Tensor:
    return torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)


def cpu_seconds(run: Run) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def spread(values: list[float]) -> str:
    return "/".join(f"{value:.2f}" for value in (min(values), statistics.median(values), max(values)))


def measure(runs: dict[str, Run], rounds: int) -> dict[str, list[float]]:
    """Return the CPU seconds of every run in every round; every other round runs backwards."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for index in range(rounds):
        for name in reversed(runs) if index % 2 else runs:
            times[name].append(cpu_seconds(runs[name]))
    return times


def make_runs(files: dict[str, Path], size: int, threads: int) -> dict[str, Run]:
    image = make_images(size)[:1]
    runs: dict[str, Run] = {}
    for name, file in files.items():
        onnx = OnnxSession(file, threads=threads)
        runs[f"ONNX Runtime {name}"] = lambda session=onnx: session.run(image.numpy())
        try:
            openvino = OpenVinoSession(file, threads=threads)
        except ImportError as error:
            print(error)
            continue
        runs[f"OpenVINO {name}"] = lambda session=openvino: session(image)
    return runs


def benchmark(name: str, size: int, rounds: int, threads: int, folder: Path) -> dict[str, Any]:
    """Print the table of a detector and return its numbers."""
    detector = make_detector(name, size)
    files = {"float": folder / f"{name}.onnx", "int8": folder / f"{name}_int8.onnx"}
    export_onnx(detector, files["float"])
    export_onnx(quantize(detector, [make_images(size // 2)]).detector, files["int8"])
    sizes = {kind: file.stat().st_size for kind, file in files.items()}
    operators = count_operators(files["int8"])
    integer, floating = operators.get("QLinearConv", 0), operators.get("Conv", 0) + operators.get("FusedConv", 0)
    print(f"{name}, one image of {size} px, {threads} thread(s), {rounds} rounds")
    print(f"int8 file: {sizes['int8'] / 1e6:.2f} MB, {sizes['int8'] / sizes['float']:.3f} of float")
    print(f"QLinearConv: {integer} of {integer + floating} convolutions ({integer / (integer + floating):.1%})")
    times = measure(make_runs(files, size, threads), rounds)
    base = times["ONNX Runtime float"]
    speeds = {}
    print(f"{'':24}{'CPU ms':>8}  times as fast as ONNX Runtime float, min/median/max")
    for run, values in times.items():
        ratios = [plain / ours for plain, ours in zip(base, values, strict=True)]
        speeds[run] = round(statistics.median(ratios), 3)
        print(f"{run:24}{1000 * statistics.median(values):8.1f}  {spread(ratios)}")
    return {
        "size_ratio": round(sizes["int8"] / sizes["float"], 4),
        "integer_share": round(integer / (integer + floating), 4),
        "speed": speeds,
    }


def main() -> None:
    """Measure, and print a table for each detector and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["yolo_nas_s", "ppyoloe_s"], choices=presets.__all__)
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        results = {
            name: benchmark(name, arguments.size, arguments.rounds, arguments.threads, Path(folder))
            for name in arguments.models
        }
    print(json.dumps({**vars(arguments), "torch": torch.__version__, "results": results}))


if __name__ == "__main__":
    main()
