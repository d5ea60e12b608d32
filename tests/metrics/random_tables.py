"""Random data sets full of what is hard to score: ties, crowds, given areas, empty images and degenerate boxes."""

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from detlit.metrics.tables import DetectionTable, ObjectTable
from tests.reference.metrics import Found, Thing


@st.composite
def tables(draw: st.DrawFn, max_per_image: int = 12) -> tuple[DetectionTable, ObjectTable]:
    """Draw detections and objects; corners on a coarse grid, so that IoUs are equal and fall on thresholds."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    num_images, classes = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    step, levels = draw(st.sampled_from([8.0, 20.0, 32.0])), draw(st.sampled_from([2, 5, 1000]))
    crowds, hits = draw(st.sampled_from([0.0, 0.2, 1.0])), draw(st.sampled_from([0.0, 0.5, 1.0]))
    image = np.repeat(np.arange(num_images), rng.integers(0, max_per_image // 2 + 1, num_images))
    count = len(image)
    box = np.concatenate([rng.integers(0, 6, (count, 2)), rng.integers(0, 7, (count, 2))], axis=1) * step
    objects = ObjectTable(
        image,
        rng.integers(0, classes, count) * 2,  # classes in between are never used
        rng.uniform(size=count) < crowds,
        box[:, 2] * box[:, 3] * rng.choice([0.3, 1.0], count),
        box,
    )
    image = np.repeat(np.arange(num_images), rng.integers(0, max_per_image + 1, num_images))
    count = len(image)
    box = np.concatenate([rng.integers(0, 6, (count, 2)), rng.integers(-1, 7, (count, 2))], axis=1) * step
    label = rng.integers(0, classes + 1, count) * 2
    for row in range(count):
        mine = np.flatnonzero(objects.image == image[row])
        if len(mine) and rng.uniform() < hits:
            copied = rng.choice(mine)
            box[row] = objects.xywh[copied] + rng.integers(-1, 2, 4) * rng.choice([0.0, 1.0, 4.0])
            label[row] = objects.label[copied] if rng.uniform() < 0.8 else label[row]
    score = (rng.integers(1, levels + 1, count) / levels).astype(np.float32)
    return DetectionTable(image, label, score, box), objects


@st.composite
def tables_for_files(draw: st.DrawFn) -> tuple[DetectionTable, ObjectTable]:
    """Draw the same without negative sides, which no results file may hold."""
    detections, objects = draw(tables())
    least = np.array([-np.inf, -np.inf, 0.0, 0.0])
    return replace(detections, xywh=np.maximum(detections.xywh, least)), objects


def as_lists(detections: DetectionTable, objects: ObjectTable) -> tuple[list[Found], list[Thing]]:
    """Return the tables for the slow reference."""
    founds = [
        Found(
            int(detections.image[i]), int(detections.label[i]), float(detections.score[i]), tuple(detections.xywh[i]), i
        )
        for i in range(len(detections))
    ]
    things = [
        Thing(
            int(objects.image[i]),
            int(objects.label[i]),
            tuple(objects.xywh[i]),
            bool(objects.iscrowd[i]),
            float(objects.area[i]),
        )
        for i in range(len(objects))
    ]
    return founds, things
