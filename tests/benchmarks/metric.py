"""Time and memory of the COCO statistics, and of pycocotools and hotcoco on the same detections.

Run: python tests/benchmarks/metric.py. 5,000 images with 100 detections each, 80 classes, one crowd in 83 objects,
tied scores. Every scorer starts from the arrays that the metric has accumulated: what it takes to bring them into the
form it wants (dicts of annotations, an array of results) counts. Time is CPU time; scorers take turns. Memory is the
rise of the resident set at its highest, each scorer in a process of its own. The update is that of a batch of 32
images. Refuses to print anything if the statistics differ by more than 1e-12.
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import multiprocessing.connection
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from detlit.metrics import CocoMeanAveragePrecision
from detlit.metrics.collecting import Tables
from detlit.metrics.pycocotools_backend import evaluate_with_pycocotools
from detlit.structures import Detection, Target

try:
    import hotcoco
except ImportError:
    hotcoco = None

OBJECTS_PER_IMAGE, CROWD_SHARE, BATCH = 7, 0.012, 32
OURS, REFERENCE, HOTCOCO, REPORT = "detlit", "pycocotools", "hotcoco", "detlit, whole report"
Images = list[tuple[Detection, Target]]
Scorer = Callable[[CocoMeanAveragePrecision], NDArray[np.float64]]


def make_images(num_images: int, per_image: int, num_classes: int) -> Images:
    """Return detections of which half are near an object, scores in steps of a thousandth, best first."""
    rng = np.random.default_rng(0)
    images: Images = []
    for index in range(num_images):
        count = rng.poisson(OBJECTS_PER_IMAGE)
        sides = np.exp(rng.uniform(np.log(8), np.log(300), (count, 2)))
        corners = rng.uniform(0, 1, (count, 2)) * (640 - sides)
        boxes, labels = np.concatenate([corners, corners + sides], axis=1), rng.integers(0, num_classes, count)
        target = Target(
            boxes=torch.from_numpy(boxes).float(),
            labels=torch.from_numpy(labels),
            dataset_index=index,
            orig_boxes=torch.from_numpy(boxes),
            orig_labels=torch.from_numpy(labels),
            orig_iscrowd=torch.from_numpy(rng.uniform(size=count) < CROWD_SHARE),
            orig_area=torch.from_numpy(sides.prod(axis=1) * rng.uniform(0.4, 1, count)),
        )
        images.append((detect(boxes, labels, per_image, num_classes, rng), target))
    return images


def detect(
    boxes: NDArray[np.float64], labels: NDArray[np.int64], number: int, num_classes: int, rng: np.random.Generator
) -> Detection:
    sides = np.exp(rng.uniform(np.log(8), np.log(300), (number, 2)))
    corners = rng.uniform(0, 600, (number, 2))
    found, classes = np.concatenate([corners, corners + sides], axis=1), rng.integers(0, num_classes, number)
    scores = rng.beta(1, 3, number)
    if len(boxes):
        near = np.flatnonzero(rng.uniform(size=number) < 0.5)
        chosen = rng.integers(0, len(boxes), len(near))
        size = np.tile(boxes[chosen, 2:] - boxes[chosen, :2], 2)
        found[near] = boxes[chosen] + rng.normal(0, 0.1, (len(near), 4)) * size
        classes[near] = np.where(rng.uniform(size=len(near)) < 0.8, labels[chosen], classes[near])
        scores[near] += 0.2
    scores = np.round(scores.clip(0, 1), 3)
    order = np.argsort(-scores, kind="stable")
    return Detection(
        boxes=torch.from_numpy(found[order]).float(),
        scores=torch.from_numpy(scores[order]).float(),
        labels=torch.from_numpy(classes[order]),
    )


def batches_of(images: Images) -> list[tuple[list[Detection], list[Target]]]:
    chunks = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    return [([found for found, _ in chunk], [truth for _, truth in chunk]) for chunk in chunks]


def accumulated(images: Images) -> CocoMeanAveragePrecision:
    metric = CocoMeanAveragePrecision()
    for found, truth in batches_of(images):
        metric.update(found, truth)
    return metric


def fresh(metric: CocoMeanAveragePrecision) -> CocoMeanAveragePrecision:
    """Return the metric without anything that an earlier computation has put aside."""
    metric._tables = metric._evaluated = metric._computed = None
    return metric


def score_with_detlit(metric: CocoMeanAveragePrecision) -> NDArray[np.float64]:
    return np.array([value.item() for value in fresh(metric).compute().values()])


def score_with_report(metric: CocoMeanAveragePrecision) -> NDArray[np.float64]:
    return np.array(list(fresh(metric).compute_report().statistics.values()))


def score_with_pycocotools(metric: CocoMeanAveragePrecision) -> NDArray[np.float64]:
    tables = fresh(metric).tables()
    return evaluate_with_pycocotools(tables.detections, tables.objects).statistics()


def score_with_hotcoco(metric: CocoMeanAveragePrecision) -> NDArray[np.float64]:
    tables = fresh(metric).tables()
    truth = hotcoco.COCO(annotations_of(tables))
    found = tables.detections
    columns = (found.image[:, None], found.xywh, found.score[:, None], found.label[:, None])
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = hotcoco.COCOeval(truth, truth.loadRes(np.concatenate(columns, axis=1, dtype=np.float64)), "bbox")
        evaluation.run()
    return np.array(evaluation.stats[:12])


def annotations_of(tables: Tables) -> dict[str, object]:
    objects = tables.objects
    columns = (objects.image, objects.label, objects.iscrowd.astype(int), objects.area, objects.xywh)
    rows = enumerate(zip(*(column.tolist() for column in columns), strict=True), start=1)
    return {
        "images": [{"id": image, "width": 640, "height": 640} for image in range(len(tables.dataset_index))],
        "categories": [{"id": label, "name": str(label)} for label in np.unique(objects.label).tolist()],
        "annotations": [
            {"id": number, "image_id": image, "category_id": label, "iscrowd": crowd, "area": area, "bbox": box}
            for number, (image, label, crowd, area, box) in rows
        ],
    }


SCORERS: dict[str, Scorer] = {
    OURS: score_with_detlit,
    REPORT: score_with_report,
    HOTCOCO: score_with_hotcoco,
    REFERENCE: score_with_pycocotools,
}


def memory_mib(name: str, metric: CocoMeanAveragePrecision) -> float:
    """Return by how much the resident set of a new process rises at its highest while it scores."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_memory, args=(sender, name, metric))
    process.start()
    value: float = receiver.recv()
    process.join()
    return value


def _send_memory(sender: "multiprocessing.connection.Connection", name: str, metric: CocoMeanAveragePrecision) -> None:
    SCORERS[name](accumulated(make_images(4, 10, 3)))  # import what is imported late
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = resident_mib("VmRSS")
    SCORERS[name](metric)
    sender.send(resident_mib("VmHWM") - before)


def resident_mib(field: str) -> float:
    status = Path("/proc/self/status").read_text().split(f"{field}:")[1]
    return int(status.split()[0]) / 1024


def cpu_seconds(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def update_milliseconds(images: Images, rounds: int) -> list[float]:
    """Return the CPU time of an update, the mean over all batches, of each round."""
    batches, metric, times = batches_of(images), CocoMeanAveragePrecision(), []
    for _ in range(rounds):
        metric.reset()
        times.append(1000 * cpu_seconds(lambda: [metric.update(*batch) for batch in batches]) / len(batches))
    return times


def spread(values: list[float], digits: int = 2) -> str:
    return "/".join(f"{value:.{digits}f}" for value in (min(values), statistics.median(values), max(values)))


def main() -> None:
    """Check, measure, and print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--detections", type=int, default=100)
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    names = [name for name in SCORERS if name != HOTCOCO or hotcoco is not None]
    if hotcoco is None:
        print("hotcoco is not installed: pip install hotcoco==1.3.0 to compare with it.")

    images = make_images(arguments.images, arguments.detections, arguments.classes)
    metric = accumulated(images)
    memory = {name: memory_mib(name, metric) for name in names}
    values, times = {}, {name: [] for name in names}
    for index in range(arguments.rounds):
        for name in reversed(names) if index % 2 else names:
            start = time.process_time()
            values[name] = SCORERS[name](metric)
            times[name].append(time.process_time() - start)
    for name in names:
        np.testing.assert_allclose(values[name], values[REFERENCE], rtol=0, atol=1e-12, err_msg=name)
    updates = update_milliseconds(images, 3 * arguments.rounds)

    print(f"{arguments.images} images, {arguments.detections} detections each, {arguments.classes} classes")
    print(f"mAP {values[OURS][0]:.6f}, the twelve statistics of all scorers equal to 1e-12")
    print(f"{'':24}{'CPU s, min/median/max':>24}{'times detlit':>18}{'extra MiB':>12}")
    results = {}
    for name in names:
        ratios = [theirs / ours for theirs, ours in zip(times[name], times[OURS], strict=True)]
        print(f"{name:24}{spread(times[name]):>24}{spread(ratios, 1):>18}{memory[name]:12.0f}")
        results[name] = {
            "cpu_seconds": round(statistics.median(times[name]), 3),
            "times_detlit": round(statistics.median(ratios), 2),
            "extra_mib": round(memory[name]),
        }
    print(f"update of {BATCH} images: {spread(updates, 3)} ms")
    results["update_ms"] = {"cpu_milliseconds": round(statistics.median(updates), 4)}
    print(json.dumps({**vars(arguments), "numpy": np.__version__, "results": results}))


if __name__ == "__main__":
    main()
