"""``detlit evaluate``: score the predictions of any tool, without torch."""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from detlit.cli.messages import FriendlyErrors
from detlit.data.datasets.coco_file import CocoFile
from detlit.errors import AnnotationError, ConfigurationError
from detlit.metrics.quality import QualityReport, quality_report
from detlit.metrics.results_file import read_results
from detlit.metrics.tables import ObjectTable, stable_order
from detlit.reports.evaluation import write_evaluation
from detlit.reports.evaluation_pictures import LoadImage
from detlit.reports.evaluation_tables import class_table, statistics_table

__all__ = ["CocoObjects", "evaluate", "main"]

_DESCRIPTION = """\
Score detections in COCO's results format against COCO annotations: the twelve statistics as pycocotools computes them,
and what goes wrong. Works for the predictions of any tool."""


def main(argv: Sequence[str]) -> None:
    """Run ``detlit evaluate``.

    Args:
        argv: the command and its options.
    """
    parser = FriendlyErrors(prog="detlit evaluate", allow_abbrev=False, description=_DESCRIPTION)
    parser.add_argument("results", type=str, help="Json file of detections in COCO's results format.")
    parser.add_argument("annotations", type=str, help="Json file of the ground truth in COCO's format.")
    parser.add_argument("--per_class", action="store_true", help="Also print a row for each class.")
    parser.add_argument(
        "--score_threshold",
        type=float | None,
        default=None,
        help="Where to look at precision, recall, confusion and errors; where F1 is greatest unless given.",
    )
    parser.add_argument("--report", type=str | None, default=None, help="Folder for report.html and metrics.json.")
    parser.add_argument(
        "--images", type=str | None, default=None, help="Folder of the images, for pictures of mistakes in the report."
    )
    arguments = parser.parse_args(list(argv[1:]))
    if arguments.images is not None and arguments.report is None:
        raise ConfigurationError(f"--images {arguments.images} is for the report: add --report FOLDER.")
    if arguments.images is not None and not Path(arguments.images).is_dir():
        raise ConfigurationError(f"there is no folder {arguments.images}: correct --images.")
    truth = CocoObjects(Path(arguments.annotations))
    report = evaluate(arguments.results, truth, arguments.score_threshold)
    console = Console(highlight=False)
    console.print(statistics_table(f"{arguments.results}: {report.num_images} images", report.statistics))
    if arguments.per_class:
        console.print(class_table(report))
    if arguments.report is not None:
        path = write_evaluation(
            report,
            arguments.report,
            "Evaluation",
            f"{arguments.results}, scored on {arguments.annotations}",
            None if arguments.images is None else _reader(Path(arguments.images), truth),
            lambda image: truth.file_names[image],
        )
        console.print(f"report: {path}", markup=False, soft_wrap=True)


def _reader(folder: Path, truth: "CocoObjects") -> LoadImage:
    """Return what reads an image for the report; only this imports torch."""
    from detlit.data.images import read_image

    return lambda image: read_image(folder / truth.file_names[image], truth.size(image))


class CocoObjects:
    """The objects of a COCO annotation file, its images in the order of their ids, as in pycocotools.

    Args:
        path: the json file.

    Raises:
        DatasetError: the file is missing.
        AnnotationError: it is no COCO file, or an entry is incomplete or contradictory.
    """

    def __init__(self, path: Path) -> None:
        file = CocoFile(path)
        images, annotations = file.rows("images"), file.rows("annotations")
        ids = file.integers(images, "id", "image")
        by_id = np.argsort(ids)
        rank = np.argsort(by_id)
        self.image_ids: NDArray[np.int64] = ids[by_id]
        self.file_names = [str(images[row].get("file_name", ids[row])) for row in by_id.tolist()]
        self._sizes = file.sizes(images)[by_id].tolist()
        self.categories = file.categories()
        image = rank[file.owners(ids, annotations)]
        order = stable_order(image)
        xywh = file.boxes(annotations)
        area = file.areas(annotations, xywh)
        self.objects = ObjectTable(
            image[order], file.labels(annotations)[order], file.crowds(annotations)[order], area[order], xywh[order]
        )

    def size(self, image: int) -> tuple[int, int] | None:
        """Return (height, width) of an image, ``None`` where the file does not say."""
        height, width = self._sizes[image]
        return (height, width) if height and width else None


def evaluate(results: str | Path, truth: CocoObjects, score_threshold: float | None = None) -> QualityReport:
    """Score the detections in a file; warnings tell how many are of unknown categories, and if most images have none.

    Args:
        results: json file in COCO's results format.
        truth: the objects.
        score_threshold: where to look; where F1 over all classes is greatest unless given.

    Raises:
        AnnotationError: a file that cannot be understood, or detections in images that the ground truth lacks.
    """
    names = [Path(name).name for name in truth.file_names]
    detections, left_out = read_results(
        results,
        {int(image_id): position for position, image_id in enumerate(truth.image_ids)},
        {category: label for label, category in enumerate(truth.categories)},
        {name: position for position, name in enumerate(names)} if len(set(names)) == len(names) else None,
        {name: label for label, name in enumerate(truth.categories.values())},
    )
    if not len(truth.image_ids):
        raise AnnotationError("the ground truth lists no images: choose another annotation file.")
    if left_out:
        _warn(f"{left_out} detections of categories that the ground truth does not declare are left out")
    annotated = np.unique(truth.objects.image)
    seen = int(np.isin(annotated, detections.image).sum())
    if 2 * seen < len(annotated):
        _warn(f"only {seen} of the {len(annotated)} images with objects have detections: are these of another split?")
    return quality_report(
        detections,
        truth.objects,
        num_images=len(truth.image_ids),
        class_names=list(truth.categories.values()),
        score_threshold=score_threshold,
    )


def _warn(sentence: str) -> None:
    print(f"detlit: warning: {sentence}", file=sys.stderr)
