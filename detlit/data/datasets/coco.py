"""Data sets in COCO's json format."""

from collections.abc import Sequence
from pathlib import Path

from detlit.data.datasets import coco_file
from detlit.data.datasets.annotated import AnnotatedDataset, Classes, select_classes
from detlit.data.datasets.table import AnnotationTable
from detlit.errors import DatasetError

__all__ = ["CocoDataset"]


class CocoDataset(AnnotatedDataset):
    """Images annotated in one COCO json file. Nothing is read before the first use.

    Categories become labels by name. A missing ``iscrowd`` is 0, a missing ``area`` that of the box, and images without
    annotations are background. A single warning tells what is odd but harmless.

    Args:
        annotations: the json file, relative to ``root``.
        images: the folder that the file names in it start from, relative to ``root``. Where there is no folder
            ``images/train2017``, ``train2017`` is tried, and the other way round.
        root: the folder of the data set; ``None`` is the working directory, or what the data module says.
        class_names: names of the labels in their order; ``None`` takes the declared categories in the order of their
            ids, used or not, or what the data module says.
        classes: the classes to keep, in this order; objects of others are left out. A mapping renames too:
            ``{car: vehicle, bus: vehicle, dog: dog}``.
        ignore_empty: leave out images without annotations.
        max_samples: keep only the first images, to try something out.

    Raises:
        DatasetError: on first use: a missing file or folder, no images, or classes that ``class_names`` lacks.
        AnnotationError: on first use: an annotation that cannot be understood.
        ImageReadError: from ``load_image``: a file that cannot be read or has another size than its annotations say.
    """

    def __init__(
        self,
        annotations: str,
        images: str = "",
        root: str | None = None,
        class_names: Sequence[str] | None = None,
        classes: Classes | None = None,
        ignore_empty: bool = False,
        max_samples: int | None = None,
    ) -> None:
        super().__init__(class_names, classes, ignore_empty, max_samples)
        self.annotations = annotations
        self.images = images
        self.root = root

    @property
    def annotation_path(self) -> Path:
        """The json file."""
        return Path(self.root or "", self.annotations)

    @property
    def source(self) -> str:
        """The json file, for messages."""
        return str(self.annotation_path)

    def read_class_names(self) -> tuple[str, ...]:
        """Return the declared categories in the order of their ids."""
        return coco_file.read_class_names(self.annotation_path)

    @property
    def category_ids(self) -> dict[str, int]:
        """The id in the file of each class; of those merged into one, the first."""
        declared = coco_file.read_categories(self.annotation_path)
        renamed = select_classes(list(declared.values()), self.classes, self.source)
        ids = {name: key for key, name in declared.items()}
        return {new: ids[old] for old, new in reversed(renamed.items())}

    def read_table(self) -> AnnotationTable:
        """Return all images and objects of the file."""
        return coco_file.read_table(self.annotation_path)

    def find_image_folder(self) -> Path:
        """Return the folder of the images, as given or with ``images/`` added or left out."""
        given = Path(self.root or "", self.images)
        parts = Path(self.images).parts
        other = Path(*parts[1:]) if parts[:1] == ("images",) else Path("images", self.images)
        for folder in (given, Path(self.root or "", other)):
            if folder.is_dir():
                return folder
        raise DatasetError(f"there is no image folder {given}: check data.root and the data set's 'images'.")
