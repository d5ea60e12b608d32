"""Images per second and core of the training data pipeline, and of modern-yolonas' and Ultralytics' where installed.

Run: python tests/benchmarks/data.py --rounds 10. One process, one thread. The images are JPEGs of 640x480 made here:
clouds of several scales with edges and grain, 100 to 130 kB each, like photographs; each has seven boxes. All pipelines
decode, scale by 0.5 to 1.5, shift by 0.1, mirror half of the images, change hue, saturation and value of all by up to
18/30/30, letterbox to 640x640, and return uint8 (3, 640, 640) with boxes. They take turns; time is CPU time, which a
busy machine changes little.
"""

import argparse
import itertools
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from detlit.data import CocoDataset, DetectionDataModule, DetectionSampler, SampleIndex
from detlit.data.transforms import BatchHSV, HorizontalFlip, Mosaic, RandomAffine, RandomHSV, Transform

try:
    import modern_yolonas
    from modern_yolonas.data import YOLODetectionDataset
    from modern_yolonas.data import transforms as modern
except ImportError:
    modern_yolonas = None
try:
    os.environ.setdefault("YOLO_VERBOSE", "false")
    import ultralytics
except ImportError:
    ultralytics = None

SIZE, IMAGES, BOXES = 640, 48, 7
IN_BATCH, CACHED = "detlit, partners of the batch", "detlit, RAM cache"
Draw = Callable[[], tuple[np.ndarray, np.ndarray]]


def make_image(generator: np.random.Generator) -> np.ndarray:
    """Return 480x640 BGR with structure at all scales."""
    image = np.zeros((480, 640, 3), np.float32)
    for cells in (3, 8, 24, 80, 240):
        coarse = generator.normal(0, 1, (cells * 3 // 4, cells, 3)).astype(np.float32)
        image += cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC) * 60 / cells**0.4
    for _ in range(12):
        centre, axes = generator.integers(0, 640, 2).tolist(), generator.integers(10, 120, 2).tolist()
        cv2.ellipse(
            image, centre, axes, float(generator.uniform(0, 180)), 0, 360, generator.normal(0, 60, 3).tolist(), -1
        )
    image += generator.normal(128, 9, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def write_data(root: Path) -> list[int]:
    """Write the images with YOLO and COCO annotations; return the sizes of the files in bytes."""
    generator = np.random.default_rng(0)
    for folder in ("images/train", "labels/train"):
        (root / folder).mkdir(parents=True)
    images, annotations, sizes = [], [], []
    for key in range(IMAGES):
        file = root / f"images/train/{key:03}.jpg"
        cv2.imwrite(str(file), make_image(generator), [cv2.IMWRITE_JPEG_QUALITY, 90])
        sizes.append(file.stat().st_size)
        images.append({"id": key, "file_name": file.name, "width": 640, "height": 480})
        rows = []
        for _ in range(BOXES):
            width, height = generator.uniform(40, 200, 2)
            x, y = generator.uniform(0, 640 - width), generator.uniform(0, 480 - height)
            annotation = {"id": len(annotations), "image_id": key, "category_id": 1, "bbox": [x, y, width, height]}
            annotations.append({**annotation, "iscrowd": 0, "area": width * height})
            rows.append(f"0 {(x + width / 2) / 640} {(y + height / 2) / 480} {width / 640} {height / 480}")
        (root / f"labels/train/{key:03}.txt").write_text("\n".join(rows))
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (root / "train.json").write_text(json.dumps(content))
    return sizes


# ---------------------------------------------------------------------------------------------------- pipelines
def detlit_draw(root: Path, mosaic: Mosaic | None, hsv: Transform, cache: str | None = None) -> Draw:
    augmentations = [RandomAffine(), HorizontalFlip(), hsv, *([] if mosaic is None else [mosaic])]
    data = DetectionDataModule(
        CocoDataset("train.json", "images/train", root=str(root)),
        augmentations=augmentations,
        image_size=SIZE,
        cache=cache,  # type: ignore[arg-type]
        num_workers=0,
    )
    loader = data.train_dataloader()
    indices = itertools.chain.from_iterable(map(epoch_of, itertools.repeat(loader.sampler), itertools.count()))

    def draw() -> tuple[np.ndarray, np.ndarray]:
        image, target = loader.dataset[next(indices)]
        return image.numpy(), target["boxes"].numpy()

    return draw


def epoch_of(sampler: DetectionSampler, epoch: int) -> Iterator[SampleIndex]:
    sampler.set_epoch(epoch)
    return iter(sampler)


def modern_draw(root: Path, mosaic: bool, as_trained: bool = False) -> Draw:
    """Return modern-yolonas' pipeline with uint8 output, or with the floats in [0, 1] that it trains with."""
    dataset, numbers = YOLODetectionDataset(root, "train"), itertools.count()
    pipeline = modern.TrainTransformPipeline(
        modern.Mosaic(dataset, SIZE) if mosaic else None,
        modern.Compose(
            [
                modern.RandomAffine(0.0, 0.1, (0.5, 1.5), 0.0),
                modern.HSVAugment(18, 30, 30, 1.0),
                modern.HorizontalFlip(0.5),
            ]
        ),
        None,
        modern.Compose([modern.LetterboxResize(SIZE), *([modern.Normalize()] if as_trained else [])]),
    )

    def draw() -> tuple[np.ndarray, np.ndarray]:
        image, targets = pipeline.apply(next(numbers) % IMAGES, dataset.load_raw)
        return np.ascontiguousarray(image if as_trained else image.transpose(2, 0, 1)), targets

    return draw


def ultralytics_draw(root: Path, mosaic: bool, cache: str | None = None) -> Draw:
    from ultralytics.cfg import get_cfg
    from ultralytics.data import YOLODataset

    settings = {"hsv_h": 0.1, "hsv_s": 0.24, "hsv_v": 0.24, "translate": 0.1, "scale": 0.5, "fliplr": 0.5}
    dataset = YOLODataset(
        img_path=str(root / "images/train"),
        imgsz=SIZE,
        augment=True,
        hyp=get_cfg(overrides={**settings, "mosaic": float(mosaic), "mixup": 0.0, "copy_paste": 0.0}),
        cache=cache,
        data={"names": {0: "thing"}, "nc": 1, "channels": 3},
        task="detect",
    )
    numbers = itertools.count()

    def draw() -> tuple[np.ndarray, np.ndarray]:
        sample: Any = dataset[next(numbers) % IMAGES]
        return sample["img"].numpy(), sample["bboxes"].numpy()

    return draw


def pipelines(root: Path) -> Iterator[tuple[str, str, Draw]]:
    """Yield the setting, the name and the draw of every pipeline; detlit's come first."""
    for setting, mosaic in (("plain", None), ("mosaic", Mosaic())):
        yield setting, "detlit", detlit_draw(root, mosaic, RandomHSV())
        yield setting, "detlit, HSV as a matrix", detlit_draw(root, mosaic, RandomHSV(mode="matrix"))
        yield setting, "detlit, HSV on the device", detlit_draw(root, mosaic, BatchHSV())
        if mosaic:
            in_batch = Mosaic(partners="batch")
            yield setting, IN_BATCH, detlit_draw(root, in_batch, RandomHSV())
            yield setting, f"{IN_BATCH}, HSV on the device", detlit_draw(root, in_batch, BatchHSV())
            yield setting, CACHED, detlit_draw(root, mosaic, RandomHSV(), "ram")
            yield setting, f"{CACHED}, HSV on the device", detlit_draw(root, mosaic, BatchHSV(), "ram")
        if modern_yolonas is not None:
            name = f"modern-yolonas {modern_yolonas.__version__}"
            yield setting, name, modern_draw(root, mosaic is not None)
            yield setting, f"{name}, float32 as it trains", modern_draw(root, mosaic is not None, as_trained=True)
        if ultralytics is not None:
            yield setting, f"ultralytics {ultralytics.__version__}", ultralytics_draw(root, mosaic is not None)
            if mosaic:
                yield setting, f"ultralytics {ultralytics.__version__}, RAM cache", ultralytics_draw(root, True, "ram")


def check(draw: Draw, name: str) -> None:
    """Refuse to time what does not return the same kind of sample; also the warm-up."""
    boxes = 0
    for _ in range(16):
        image, rows = draw()
        assert image.shape == (3, SIZE, SIZE), name
        assert image.flags.c_contiguous, name
        assert image.dtype == (np.float32 if "float32" in name else np.uint8), name
        assert image.std() > (0.04 if "float32" in name else 10), name
        boxes += len(rows)
    assert 16 * 2 < boxes < 16 * 4 * BOXES, (name, boxes)


def cpu_seconds(draw: Draw, images: int) -> float:
    start = time.process_time()
    for _ in range(images):
        draw()
    return (time.process_time() - start) / images


def spread(values: list[float]) -> str:
    return "/".join(f"{value:.2f}" for value in (min(values), statistics.median(values), max(values)))


def main() -> None:
    """Measure, and print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--images", type=int, default=48, help="per pipeline and round")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - the others draw from it
    if modern_yolonas is None:
        print("modern-yolonas is not installed: pip install modern-yolonas==0.5.0 to compare with it.")
    if ultralytics is None:
        print("ultralytics is not installed: pip install ultralytics to compare with it.")

    with tempfile.TemporaryDirectory() as folder:
        sizes = write_data(Path(folder))
        draws = {(setting, name): draw for setting, name, draw in pipelines(Path(folder))}
        for key, draw in draws.items():
            check(draw, str(key))
        times: dict[tuple[str, str], list[float]] = {key: [] for key in draws}
        for number in range(arguments.rounds):
            for key in reversed(draws) if number % 2 else draws:
                times[key].append(cpu_seconds(draws[key], arguments.images))

    print(f"{IMAGES} JPEGs of 640x480, {min(sizes) / 1e3:.0f} to {max(sizes) / 1e3:.0f} kB, {arguments.rounds} rounds")
    print(f"{'':54}{'images/s':>9}  detlit against it, min/median/max")
    results: dict[str, Any] = {}
    for (setting, name), seconds in times.items():
        per_second = 1 / statistics.median(seconds)
        ratios = {}
        for own in ("detlit", IN_BATCH, CACHED):
            if not name.startswith("detlit") and (setting, own) in times:
                ratios[own] = [other / ours for ours, other in zip(times[setting, own], seconds, strict=True)]
        text = "  ".join(f"{spread(values)} ({own.removeprefix('detlit, ')})" for own, values in ratios.items())
        print(f"{setting + ', ' + name:54}{per_second:9.0f}  {text}")
        results[f"{setting}, {name}"] = {
            "images_per_second": round(per_second, 1),
            "ratios": {own: round(statistics.median(values), 2) for own, values in ratios.items()},
        }
    print(json.dumps({**vars(arguments), "opencv": cv2.__version__, "results": results}))


if __name__ == "__main__":
    main()
