"""The report of ``detlit check-data``: report.html and report.json."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detlit.data.check import Checkup, Finding, Records
from detlit.data.images import read_image
from detlit.errors import ImageReadError
from detlit.reports.gallery import mark_boxes, side_by_side
from detlit.reports.html import Page, Picture

__all__ = ["write_report"]

PICTURES = 6
"""Images that a finding is illustrated with."""


def write_report(checkup: Checkup, folder: Path) -> Path:
    """Write both files and return the path of the page.

    Args:
        checkup: what was found.
        folder: where they go.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(checkup.to_dict(), indent=1), encoding="utf-8")
    page = Page("Data report", ", ".join(dict.fromkeys(split.source for split in checkup.records.splits)))
    _add_overview(page, checkup)
    _add_findings(page, checkup)
    _add_counts(page, checkup)
    _add_distributions(page, checkup)
    if checkup.images_read:
        _add_gallery(page, checkup)
    page.write(folder / "report.html")
    return folder / "report.html"


def _add_overview(page: Page, checkup: Checkup) -> None:
    records = checkup.records
    page.figures(
        [
            (f"{records.num_images:,}", "images"),
            (f"{len(records.labels):,}", "objects"),
            (len(records.class_names), "classes"),
            (len(checkup.of("error")), "kinds of errors"),
            (len(checkup.of("warning")), "kinds of warnings"),
            (len(checkup.of("note")), "kinds of notes"),
        ]
    )


def _add_findings(page: Page, checkup: Checkup) -> None:
    page.section("Findings")
    if not checkup.findings:
        page.text("Nothing is wrong.")
    for finding in checkup.findings:
        remark = f" ({finding.remark})" if finding.remark else ""
        page.message(finding.severity, finding.title + remark, _capital(finding.kind.cure) + ".", finding.places, 50)
    if not checkup.images_read:
        page.text(
            "The images were not read: whether they can be decoded and whether some are there twice is not known."
        )
    suggestion = checkup.statistics.suggestion
    page.section("Suggested settings", "Where to begin; memory and accuracy decide.")
    page.table(
        ["setting", "value", "because"],
        [
            ["data.image_size", suggestion.image_size, suggestion.reasons[0]],
            ["data.batch_size", suggestion.batch_size, suggestion.reasons[1]],
        ],
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _add_counts(page: Page, checkup: Checkup) -> None:
    records, statistics = checkup.records, checkup.statistics
    names = [split.name for split in records.splits]
    page.section("Images and objects")
    page.table(
        ["split", "images", "without objects", "objects", "crowds", "format"],
        [
            [name, *map(int, counts), split.format]
            for name, split, *counts in zip(
                names,
                records.splits,
                statistics.images,
                statistics.empty,
                statistics.objects.sum(axis=1),
                statistics.crowds,
                strict=True,
            )
        ],
    )
    page.table(
        ["class", *names, "all"],
        [
            [name, *map(int, statistics.objects[:, label]), int(statistics.objects[:, label].sum())]
            for label, name in enumerate(records.class_names)
        ],
    )


def _add_distributions(page: Page, checkup: Checkup) -> None:
    statistics = checkup.statistics
    height, width = checkup.preprocessing.size
    totals = statistics.objects.sum(axis=0)
    frequent = np.argsort(-totals, kind="stable")[:12].tolist()
    page.section(
        "Distributions", f"Sizes are those in the network input, {width}x{height} pixels; crowds are left out."
    )
    page.bars("objects of each class", [checkup.records.class_names[i] for i in frequent], totals[frequent].tolist())
    page.histogram("images by their number of objects", statistics.per_image, "objects")
    page.histogram("objects by the square root of their area", statistics.sides, "pixels", logarithmic=True)
    page.histogram("objects by their shorter side", statistics.short_sides, "pixels", logarithmic=True)
    page.histogram("objects by width over height", statistics.aspects, "width / height", logarithmic=True)
    sizes = statistics.image_sizes
    page.table(
        ["image width", "image height", "images"], [[width, height, count] for (height, width), count in sizes[:8]]
    )
    if len(sizes) > 8:
        page.text(f"and {len(sizes) - 8} other sizes")


def _add_gallery(page: Page, checkup: Checkup) -> None:
    """Show the worst cases of each finding that has pictures."""
    begun = False
    for finding in checkup.findings:
        pictures = _pictures(checkup.records, finding)
        if pictures:
            if not begun:
                page.section("Worst cases")
                begun = True
            page.message(finding.severity, finding.title)
            page.picture_grid(pictures)


def _pictures(records: Records, finding: Finding) -> list[Picture]:
    """Return the worst images of a finding; boxes that are NaN cannot be shown."""
    pictures: list[Picture] = []
    if len(finding.rows) and not np.isfinite(records.boxes[finding.rows]).all():
        return pictures
    if finding.pairs:
        chosen = [tuple(pair) for pair in finding.images.reshape(-1, 2)[:PICTURES].tolist()]
    else:
        chosen = [(image,) for image in dict.fromkeys(finding.images.tolist())][:PICTURES]
    for images in chosen:
        try:
            pixels = [_read(records, image) for image in images]
        except ImageReadError:
            continue
        caption = " and ".join(records.image_name(image) for image in images)
        if finding.pairs:
            pictures.append(Picture(side_by_side(pixels[0], pixels[1]), caption))
        else:
            pictures.append(_marked(records, finding, images[0], pixels[0], caption))
    return pictures


def _read(records: Records, image: int) -> NDArray[np.uint8]:
    """Return an image as ``(H, W, 3)`` uint8 RGB."""
    split = records.splits[records.image_split[image]]
    if records.paths[image]:
        return read_image(records.paths[image])
    if split.load_image is None:
        raise ImageReadError(f"{records.image_name(image)} is in no file.")
    pixels: NDArray[np.uint8] = split.load_image(image - int(records.first_image[records.image_split[image]]))
    return pixels


def _marked(
    records: Records,
    finding: Finding,
    image: int,
    pixels: NDArray[np.uint8],
    caption: str,
) -> Picture:
    """Return an image with all its boxes, those of the finding marked."""
    rows = np.flatnonzero(records.image == image)
    marked = np.flatnonzero(np.isin(rows, finding.rows)).tolist()
    names = [records.class_names[records.labels[rows[row]]] for row in marked]
    if marked:
        sources = [records.sources[rows[row]] for row in marked]
        caption += ": " + ", ".join(sources[:3]) + (f" and {len(sources) - 3} more" if len(sources) > 3 else "")
    return Picture(mark_boxes(pixels, records.boxes[rows], marked, names), caption)
