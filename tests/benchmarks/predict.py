"""Images per second from files to detections on the CPU, and of modern-yolonas' detector where that is installed.

Run: python tests/benchmarks/predict.py. YOLO-NAS S with the same weights, on the same folder of JPEG files, at the same
threshold. Both take turns in one process, one thread each (detlit's reading thread included: time is CPU time of the
process). Their outputs are compared before they are timed. Start-up is the CPU time of a new process that imports the
package and makes a detector from a file.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from detlit import Predictor, Preprocessing, yolo_nas_s
from detlit.models.checkpoint_entry import make_entry
from detlit.models.super_gradients import from_super_gradients
from detlit.ops.boxes import decode_boxes
from detlit.prediction.canvases import network_input
from detlit.prediction.sources import read_frames
from detlit.spec import spec_of

try:
    import modern_yolonas
    from modern_yolonas.inference.detect import YoloNASDetector
    from modern_yolonas.inference.postprocess import postprocess
    from modern_yolonas.inference.preprocess import preprocess
except ImportError:
    modern_yolonas = None

NMS_THRESHOLD = 0.7
Run = Callable[[], Any]


def write_images(folder: Path, count: int) -> None:
    """Write photographs' worth of JPEG files of 640 x 480."""
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        image = cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{number}.jpg"), image)


def write_checkpoint(path: Path, detector: Any) -> None:
    """Write what ``detlit convert`` writes."""
    names = [f"class_{label}" for label in range(detector.num_classes)]
    module = {"detector": spec_of(detector), "post_prediction_callback": None}
    state = {f"detector.{name}": value for name, value in detector.state_dict().items()}
    torch.save({"state_dict": state, "detlit": make_entry(module, None, detector.preprocessing, names)}, path)


def our_stages(predictor: Predictor, folder: Path, batch_size: int) -> dict[str, Run]:
    """Return the stages one after another, each on what the one before gave."""
    engine: Any = predictor.engine
    frames = list(read_frames(folder))
    chunks = [frames[start : start + batch_size] for start in range(0, len(frames), batch_size)]
    inputs = [network_input([frame.image for frame in chunk], predictor.preprocessing)[0] for chunk in chunks]
    with torch.inference_mode():
        raw = [engine.detector(images) for images in inputs]
    return {
        "decode": lambda: list(read_frames(folder)),
        "preprocess": lambda: [
            network_input([frame.image for frame in chunk], predictor.preprocessing) for chunk in chunks
        ],
        "forward": lambda: [engine.detector(images) for images in inputs],
        "postprocess": lambda: [engine.callback(each) for each in raw],
    }


def their_stages(detector: Any, folder: Path, batch_size: int) -> dict[str, Run]:
    paths = sorted(folder.iterdir())
    images = [cv2.imread(str(path)) for path in paths]
    chunks = [images[start : start + batch_size] for start in range(0, len(images), batch_size)]
    inputs = [torch.cat([preprocess(image, detector.input_size)[0] for image in chunk]) for chunk in chunks]
    with torch.no_grad():
        raw = [detector.model(tensors) for tensors in inputs]
    return {
        "decode": lambda: [cv2.imread(str(path)) for path in paths],
        "preprocess": lambda: [
            torch.cat([preprocess(image, detector.input_size)[0] for image in chunk]) for chunk in chunks
        ],
        "forward": lambda: [detector.model(tensors) for tensors in inputs],
        "postprocess": lambda: [postprocess(*each, detector.conf_threshold, NMS_THRESHOLD) for each in raw],
    }


def check_equal(predictor: Predictor, theirs: Any, image: np.ndarray) -> None:
    """Refuse to time what does not compute the same boxes and scores."""
    ours, _ = network_input([cv2.cvtColor(image, cv2.COLOR_BGR2RGB)], predictor.preprocessing)
    tensor = preprocess(image, theirs.input_size)[0]
    assert (ours.float() / 255 - tensor).abs().max() < 1e-6
    engine: Any = predictor.engine
    with torch.inference_mode():
        raw = engine.detector(ours)
        boxes, scores = theirs.model(tensor)
    torch.testing.assert_close(raw.cls_logits.sigmoid(), scores, rtol=0, atol=1e-5)
    own = decode_boxes(raw.reg_logits, raw.anchor_points, raw.strides)
    torch.testing.assert_close(own, boxes, rtol=0, atol=1e-2)


def cpu_seconds(run: Run) -> float:
    start = time.process_time()
    with torch.inference_mode():
        run()
    return time.process_time() - start


def startup_seconds(code: str, rounds: int) -> list[float]:
    """Return the CPU time of new processes that run the code."""
    times = []
    for _ in range(rounds):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return times


def spread(values: list[float]) -> str:
    return "/".join(f"{value:.2f}" for value in (min(values), statistics.median(values), max(values)))


def main() -> None:
    """Measure, and print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--startups", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    torch.manual_seed(0)
    if modern_yolonas is None:
        print("modern-yolonas is not installed: pip install modern-yolonas==0.5.0 to compare with it.")

    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "images"
        folder.mkdir()
        write_images(folder, arguments.images)
        content = arguments.size - 4 if arguments.size == 640 else min(636, arguments.size)
        preprocessing = Preprocessing(size=(arguments.size,) * 2, content_size=(content,) * 2)
        detector = yolo_nas_s(preprocessing=preprocessing).eval()
        theirs: Any = None
        if modern_yolonas is not None:
            theirs = YoloNASDetector("yolo_nas_s", "cpu", input_size=arguments.size, pretrained=False)
            detector.load_state_dict(from_super_gradients(theirs.model.state_dict()))
            torch.save({"state_dict": theirs.model.state_dict()}, Path(root) / "theirs.pt")
        with torch.inference_mode():
            images, _ = network_input([next(read_frames(folder)).image], preprocessing)
            scores = detector(images).cls_logits.sigmoid().flatten()
        threshold = float(scores.topk(200).values[-1])  # a few boxes per image, as of a trained detector
        write_checkpoint(Path(root) / "ours.ckpt", detector)
        ours = Predictor(Path(root) / "ours.ckpt", device="cpu", score_threshold=threshold, nms_threshold=NMS_THRESHOLD)
        runs: dict[str, dict[str, Run]] = {
            "detlit": {
                **our_stages(ours, folder, arguments.batch_size),
                "end to end": lambda: list(ours(folder, batch_size=arguments.batch_size)),
            }
        }
        if theirs is not None:
            theirs.conf_threshold = threshold
            check_equal(ours, theirs, cv2.imread(str(folder / "0.jpg")))
            paths = sorted(folder.iterdir())
            size = arguments.batch_size
            runs["modern-yolonas"] = {
                **their_stages(theirs, folder, size),
                "end to end": lambda: [
                    theirs.detect_batch(paths[start : start + size]) for start in range(0, len(paths), size)
                ],
            }
        times: dict[str, dict[str, list[float]]] = {name: {stage: [] for stage in runs[name]} for name in runs}
        for index in range(arguments.rounds):
            for stage in runs["detlit"]:
                for name in reversed(runs) if index % 2 else runs:
                    times[name][stage].append(1000 * cpu_seconds(runs[name][stage]) / arguments.images)
        startups = _startups(Path(root), arguments.startups)

    ratios: dict[str, float] = {}
    print(f"YOLO-NAS S, {arguments.images} JPEG files of 640x480, {arguments.size} px, batch {arguments.batch_size}")
    print(f"{'CPU ms per image':20}" + "".join(f"{name:>16}" for name in times) + "  ratio min/median/max")
    for stage in runs["detlit"]:
        row = f"{stage:20}" + "".join(f"{statistics.median(each[stage]):16.2f}" for each in times.values())
        if theirs is not None:
            each = [b / a for a, b in zip(times["detlit"][stage], times["modern-yolonas"][stage], strict=True)]
            ratios[stage] = round(statistics.median(each), 2)
            row += f"  {spread(each)}"
        print(row)
    print(
        f"{'images/s':20}" + "".join(f"{1000 / statistics.median(each['end to end']):16.2f}" for each in times.values())
    )
    for name, values in startups.items():
        print(f"start-up of {name}: {spread(values)} CPU s")
    medians = {name: round(statistics.median(values), 3) for name, values in startups.items()}
    print(json.dumps({**vars(arguments), "torch": torch.__version__, "ratios": ratios, "startup": medians}))


def _startups(root: Path, rounds: int) -> dict[str, list[float]]:
    codes = {"detlit": f"import detlit; detlit.Predictor({str(root / 'ours.ckpt')!r}, device='cpu')"}
    if modern_yolonas is not None:
        codes["modern-yolonas"] = (
            "from modern_yolonas.inference.detect import YoloNASDetector; "
            f"YoloNASDetector('yolo_nas_s', 'cpu', weights={str(root / 'theirs.pt')!r})"
        )
    times: dict[str, list[float]] = {name: [] for name in codes}
    for _ in range(rounds):
        for name, code in codes.items():
            times[name] += startup_seconds(code, 1)
    return times


if __name__ == "__main__":
    main()
