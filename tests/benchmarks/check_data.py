"""CPU time of the doctor on annotations alone. Run: python tests/benchmarks/check_data.py [NUMBER OF ANNOTATIONS]."""

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy is imported

import numpy as np

from detlit.cli.check_data_report import write_report
from detlit.data.check import check_data, collect
from detlit.data.datasets.guess import guess_datasets

PER_IMAGE, CLASSES, FAULTS, ROUNDS = 7, 80, 500, 5


def write_data(root: Path, annotations: int) -> None:
    """Write COCO files of images that are named but empty, with some boxes without area, outside and repeated."""
    generator = np.random.default_rng(0)
    for split, count in (("train", annotations * 9 // 10), ("val", annotations // 10)):
        folder = root / "images" / split
        folder.mkdir(parents=True)
        images = [
            {"id": number, "file_name": f"{number:012}.jpg", "height": 480, "width": 640}
            for number in range(1, count // PER_IMAGE + 2)
        ]
        for image in images:
            (folder / str(image["file_name"])).touch()
        sizes = generator.uniform(4, 200, (count, 2))
        corners = generator.random((count, 2)) * (np.array([640, 480]) - sizes)
        sizes[generator.choice(count, FAULTS)] = 0
        corners[generator.choice(count, FAULTS)] += 1000
        rows = [
            {
                "id": number,
                "image_id": 1 + number // PER_IMAGE,
                "category_id": 1 + number % CLASSES,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
            for number, box in enumerate(np.hstack([corners, sizes]).round(2).tolist())
        ]
        rows[-FAULTS:] = [{**row, "id": count + number} for number, row in enumerate(rows[:FAULTS])]
        names = [{"id": number, "name": f"class {number}"} for number in range(1, CLASSES + 1)]
        content = {"images": images, "annotations": rows, "categories": names}
        (root / f"instances_{split}.json").write_text(json.dumps(content))


def main() -> None:
    """Time each step, from the files to the report."""
    annotations = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    times: dict[str, list[float]] = {"read": [], "check": [], "report": [], "all": []}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_data(root, annotations)
        for _ in range(ROUNDS):
            start = time.process_time()
            splits, problems = collect(guess_datasets(root))
            read = time.process_time()
            checkup = check_data(splits, problems=problems, read_images=False)
            checked = time.process_time()
            write_report(checkup, root / "report")
            end = time.process_time()
            for name, seconds in zip(times, (read - start, checked - read, end - checked, end - start), strict=True):
                times[name].append(seconds)
    counts = {finding.code: len(finding.places) for finding in checkup.findings}
    print(f"{len(checkup.records.labels)} annotations of {checkup.records.num_images} images; found {counts}")
    print(f"{'step':10}{'min':>8}{'median':>8}{'max':>8}   CPU seconds of {ROUNDS} runs, one core")
    for name, values in times.items():
        print(f"{name:10}{min(values):8.2f}{statistics.median(values):8.2f}{max(values):8.2f}")
    print(json.dumps({name: round(statistics.median(values), 3) for name, values in times.items()}))


if __name__ == "__main__":
    main()
