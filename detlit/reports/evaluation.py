"""The report of how good a detector is: report.html and metrics.json."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detlit.metrics.quality import ClassQuality, QualityReport
from detlit.reports.evaluation_charts import Line, heat_map, lines, reliability
from detlit.reports.evaluation_pictures import ImageName, LoadImage, missed_objects, mistake_pictures, wrong_detections
from detlit.reports.evaluation_tables import CLASS_COLUMNS, STATISTIC_NAMES, class_rows, number
from detlit.reports.html import Page

__all__ = ["write_evaluation"]

LINES = 7
"""Classes that get a line of their own in charts: those of the most objects."""

CELLS = 40
"""Classes that the confusion matrix shows at most."""


def write_evaluation(
    report: QualityReport,
    folder: str | Path,
    title: str,
    subtitle: str = "",
    load_image: LoadImage | None = None,
    image_name: ImageName | None = None,
    num_pictures: int = 12,
) -> Path:
    """Write report.html, one file that needs no network, and metrics.json, and return the path of the former.

    Args:
        report: what was measured.
        folder: where they go; made if it is not there.
        title: heading of the page.
        subtitle: a line below it, such as the checkpoint.
        load_image: for the pictures of mistakes; ``None`` leaves them out.
        image_name: what captions call an image; its position unless given.
        num_pictures: of false positives, and of missed objects.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {"title": title, "subtitle": subtitle, **report.to_dict()}
    (folder / "metrics.json").write_text(json.dumps(numbers, indent=1), encoding="utf-8")
    page = Page(title, subtitle)
    _add_overview(page, report)
    _add_classes(page, report)
    _add_curves(page, report)
    _add_confusion(page, report)
    _add_errors(page, report)
    _add_sizes(page, report)
    _add_calibration(page, report)
    if load_image is not None:
        _add_pictures(page, report, load_image, image_name or (lambda image: f"image {image}"), num_pictures)
    page.write(folder / "report.html")
    return folder / "report.html"


def _add_overview(page: Page, report: QualityReport) -> None:
    point = report.overall.at_threshold
    page.figures(
        [
            (number(report.statistics["map"]), "AP (IoU 0.50 to 0.95)"),
            (number(report.statistics["map_50"]), "AP at IoU 0.50"),
            (number(point.f1), f"F1 at score {report.score_threshold:.3f}"),
            (number(point.precision), "precision there"),
            (number(point.recall), "recall there"),
            (f"{report.num_images:,}", "images"),
            (f"{report.overall.average.num_objects:,}", "objects"),
        ]
    )
    page.text(
        f"At a score threshold of {report.score_threshold:.3f}, {point.true_positives:,} objects are found, "
        f"{point.false_negatives:,} are missed, and {point.false_positives:,} detections are wrong. "
        "AP and AR are those of the COCO protocol; right and wrong elsewhere means IoU 0.5."
    )
    page.section("COCO statistics", "A dash stands for what no object of the data measures.")
    rows = [[STATISTIC_NAMES[name], name, number(value)] for name, value in report.statistics.items()]
    page.table(["statistic", "logged as", "value"], rows)


def _add_classes(page: Page, report: QualityReport) -> None:
    page.section(
        "Classes",
        f"Precision, recall and F1 at score {report.score_threshold:.3f}; the last two columns say where each class by "
        "itself would do best.",
    )
    page.table(CLASS_COLUMNS, class_rows(report))


def _add_curves(page: Page, report: QualityReport) -> None:
    shown = _most_objects(report, LINES)
    some = f" The {len(shown)} classes with the most objects have a line of their own."
    page.section(
        "Curves",
        "At IoU 0.5, over all classes: for precision over recall their mean, otherwise all detections together. The "
        f"dashed line is the score threshold {report.score_threshold:.3f}."
        + (some if len(shown) < _num_measured(report) else ""),
    )
    qualities = [report.overall, *shown] if len(shown) > 1 else [report.overall]
    recall = np.linspace(0.0, 1.0, 101)
    page.chart(
        "precision over recall",
        lines(
            [_line(q, recall, np.where(q.precision_at_recall < 0, np.nan, q.precision_at_recall)) for q in qualities],
            "recall",
            "precision",
        ),
    )
    mark = report.score_threshold
    curves = [_line(q, q.curve.score_threshold, q.curve.f1) for q in qualities]
    page.chart("F1 over the score threshold", lines(curves, "score threshold", "F1", mark))
    curve = report.overall.curve
    both = [("precision", curve.score_threshold, curve.precision), ("recall", curve.score_threshold, curve.recall)]
    page.chart("precision and recall of all", lines(both, "score threshold", "share", mark))


def _line(quality: ClassQuality, x: NDArray[np.float64], y: NDArray[np.float64]) -> Line:
    return quality.name, x, y


def _most_objects(report: QualityReport, most: int) -> list[ClassQuality]:
    """Return the classes with objects, those of the most objects first."""
    measured = [quality for quality in report.classes if quality.average.num_objects]
    return sorted(measured, key=lambda quality: -quality.average.num_objects)[:most]


def _num_measured(report: QualityReport) -> int:
    return sum(quality.average.num_objects > 0 for quality in report.classes)


def _add_confusion(page: Page, report: QualityReport) -> None:
    counts = report.confusion
    off_diagonal = counts - np.diag(np.diag(counts))
    involved = off_diagonal[:-1].sum(axis=1) + off_diagonal[:, :-1].sum(axis=0) + counts[:-1, :-1].sum(axis=1)
    shown = np.sort(np.argsort(-involved, kind="stable")[:CELLS])
    names = [quality.name for quality in report.classes]
    left_out = f" The {CELLS} classes with the most detections and objects are shown." if len(names) > CELLS else ""
    page.section(
        "Confusion",
        "Rows are what is there, columns what was found, at the score threshold; shades are shares of the row. The "
        "last column counts missed objects, the last row detections of nothing." + left_out,
    )
    both = np.append(shown, len(names))
    page.chart(
        "objects by class and what they were taken for",
        heat_map(counts[np.ix_(both, both)], [names[i] for i in shown]),
        wide=True,
    )
    confused = off_diagonal[:-1, :-1]
    pairs = [(int(confused[row, column]), names[row], names[column]) for row, column in np.argwhere(confused)]
    if len(names) > 8 and pairs:
        pairs = sorted(pairs, reverse=True)[:10]
        page.table(["objects of class", "found as", "times"], [[row, column, count] for count, row, column in pairs])


_ERROR_MEANINGS = {
    "classification": "right place, wrong class",
    "localisation": "right class, IoU between 0.1 and 0.5",
    "both": "wrong class and IoU between 0.1 and 0.5",
    "duplicate": "of an object that a better detection has found",
    "background": "nothing is annotated there",
    "missed": "an object that no detection is about; of those missed above, some are found in another class or place",
}


def _add_errors(page: Page, report: QualityReport) -> None:
    errors = report.errors
    worst = max(_ERROR_MEANINGS, key=lambda name: errors.ap_gain[name])
    costs = f" The most costly kind here: {worst}, {errors.ap_gain[worst]:.3f}." if errors.ap_gain[worst] > 0 else ""
    page.section(
        "Errors",
        "What is wrong, and by how much AP at IoU 0.5 would rise without it (TIDE, arXiv 2008.08115)." + costs,
    )
    page.table(
        ["error", "meaning", "above the threshold", "at any score", "AP50 to gain"],
        [
            [name, meaning, errors.counts_above[name], errors.counts[name], f"{errors.ap_gain[name]:.4f}"]
            for name, meaning in _ERROR_MEANINGS.items()
        ],
    )
    names = list(_ERROR_MEANINGS)
    page.bars("AP50 to gain, by kind of error", names, [max(errors.ap_gain[name], 0.0) for name in names])
    page.bars("errors above the score threshold", names, [errors.counts_above[name] for name in names])


def _add_sizes(page: Page, report: QualityReport) -> None:
    page.section("Sizes", "Small objects are below 32 x 32 pixels of the original image, large ones above 96 x 96.")
    sizes = report.overall.sizes
    page.table(
        ["size", "objects", "AP", "AP50", "AP75", "AR"],
        [
            [name, size.num_objects, *(number(value) for value in (size.ap, size.ap_50, size.ap_75, size.ar))]
            for name, size in sizes.items()
        ],
    )
    measured = {name: size for name, size in sizes.items() if size.num_objects}
    if len(measured) > 1:
        page.bars("AP by size", list(measured), [max(size.ap, 0.0) for size in measured.values()])
        page.bars("objects by size", list(measured), [size.num_objects for size in measured.values()])


def _add_calibration(page: Page, report: QualityReport) -> None:
    calibration = report.calibration
    page.section(
        "Calibration",
        "Where a bar reaches the diagonal, a score is the probability that the detection is right; pale bars are of "
        f"few detections. The expected calibration error is {number(calibration.expected_error)}.",
    )
    page.chart(
        "precision of detections by score", reliability(calibration.edges, calibration.precision, calibration.count)
    )
    bins = [f"{low:.1f} to {high:.1f}" for low, high in zip(calibration.edges[:-1], calibration.edges[1:], strict=True)]
    page.bars("detections by score", bins, calibration.count.tolist())


def _add_pictures(
    page: Page, report: QualityReport, load_image: LoadImage, image_name: ImageName, num_pictures: int
) -> None:
    """Show the wrong detections and missed objects that weigh most."""
    for title, text, mistakes in (
        ("Worst false positives", "Wrong detections of the highest scores", wrong_detections(report)),
        (
            "Worst misses",
            "Objects that nothing finds, the largest first, then those of the lowest scores",
            missed_objects(report),
        ),
    ):
        pictures = mistake_pictures(report, mistakes, load_image, image_name, num_pictures)
        if pictures:
            page.section(
                title,
                f"{text}, at most two of each image. Left what is annotated, right the detections above the threshold; "
                "red is what the caption is about.",
            )
            page.picture_grid(pictures, wide=True)
