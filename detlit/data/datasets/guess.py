"""Which data sets are in a folder, of whatever format."""

import json
import re
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from detlit.data.datasets.annotated import AnnotatedDataset
from detlit.data.datasets.coco import CocoDataset
from detlit.data.datasets.files import list_files, read_text
from detlit.data.datasets.voc import VocDataset
from detlit.data.datasets.yolo import YoloDataset
from detlit.data.datasets.yolo_file import label_path, read_data_yaml
from detlit.errors import DatasetError

__all__ = ["guess_datasets"]

_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}

_FILE_NAME = re.compile(rb'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")')


def guess_datasets(root: str | Path) -> dict[str, AnnotatedDataset]:
    """Return the data sets found in a folder by split, ``"train"``, ``"val"`` or ``"test"``; nothing is parsed in full.

    Recognised, in this order: COCO json files in the folder or in ``annotations/`` or in one folder per split; YOLO
    with a ``data.yaml``, or folders ``images`` and ``labels``; Pascal VOC with ``Annotations`` and ``JPEGImages``, or
    xml files beside the images. A data set without splits is ``"train"``.

    Raises:
        DatasetError: there is no such folder, or nothing in it is recognised.
    """
    root = Path(root)
    if not root.is_dir():
        raise DatasetError(f"there is no folder {root}: check the path.")
    guesses: list[Callable[[Path], dict[str, AnnotatedDataset]]] = [_coco, _yolo_yaml, _voc, _yolo_twins]
    for guess in guesses:
        found = guess(root)
        if found:
            return {split: found[split] for split in ("train", "val", "test") if split in found}
    raise DatasetError(
        f"{root} holds no data set that is recognised (COCO: a json file in it or in annotations/; YOLO: data.yaml, or "
        "images/ and labels/; VOC: Annotations/ and JPEGImages/): name the format in a config instead."
    )


def _split_of(*names: str) -> str | None:
    """Return the split that one of the names holds as a word, as in ``instances_val2017``."""
    for name in names:
        for word in re.findall(r"[a-z]+", name.lower()):
            if word in _SPLITS:
                return _SPLITS[word]
    return None


def _name_in(root: Path, folder: Path) -> str:
    """Return the name of a folder below the root; what the root is called says nothing."""
    return "" if folder == root else folder.name


# ------------------------------------------------------------------------------------------------------- COCO
def _coco(root: Path) -> dict[str, AnnotatedDataset]:
    files = [*root.glob("annotations/*.json"), *root.glob("*.json"), *root.glob("*/*.json")]
    files = [path for path in dict.fromkeys(sorted(files)) if _looks_like_coco(path)]
    files.sort(key=lambda path: not path.name.startswith("instances"))  # before person_keypoints and the like
    found: dict[str, AnnotatedDataset] = {}
    for path in files:
        split = _split_of(path.stem, _name_in(root, path.parent)) or "train"
        images = _coco_images(root, path, split)
        if images is not None:
            name = path.relative_to(root).as_posix()
            found.setdefault(split, CocoDataset(name, images, root=str(root)))
    return found


def _looks_like_coco(path: Path) -> bool:
    """Return whether the first or last bytes of a json file hold the keys of detection annotations."""
    with path.open("rb") as file:
        start = file.read(1 << 16)
        file.seek(max(0, path.stat().st_size - (1 << 16)))
        text = start + file.read()
    return b'"categories"' in text and (b'"images"' in text or b'"annotations"' in text)


def _coco_images(root: Path, path: Path, split: str) -> str | None:
    """Return the folder, relative to root, that holds most of a COCO file's first images: some may be missing."""
    names = [str(json.loads(match[1])) for match in islice(_FILE_NAME.finditer(path.read_bytes()), 20)]
    folders = [path.parent, root, *_folders(root), *_folders(root / "images")]
    folders.sort(key=lambda folder: _split_of(_name_in(root, folder)) != split)
    present = [sum((folder / name).is_file() for name in names) for folder in folders]
    best = folders[present.index(max(present))]
    return best.relative_to(root).as_posix() if any(present) else None


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.is_dir())


# ------------------------------------------------------------------------------------------------------- YOLO
def _yolo_yaml(root: Path) -> dict[str, AnnotatedDataset]:
    for path in sorted([*root.glob("*.yaml"), *root.glob("*.yml")], key=lambda path: path.stem != "data"):
        try:
            content = read_data_yaml(path)
        except DatasetError:
            if path.stem == "data":
                raise
            continue
        there = {split for split, entries in content.splits.items() if all(entry.exists() for entry in entries)}
        if there:
            return {split: YoloDataset(split, path.name, root=str(root)) for split in content.splits if split in there}  # type: ignore[arg-type]
    return {}


def _yolo_twins(root: Path) -> dict[str, AnnotatedDataset]:
    """Find ``images`` and ``labels`` with a folder per split in each, or in a folder per split, or without splits."""
    images = [*_folders(root / "images"), *(folder / "images" for folder in _folders(root))]
    found: dict[str, str] = {}
    for folder in [folder for folder in images if _labels_of(folder).is_dir()]:
        split = _split_of(folder.name, folder.parent.name)
        if split is not None:
            found.setdefault(split, folder.relative_to(root).as_posix())
    if not found and (root / "images").is_dir() and (root / "labels").is_dir():
        found["train"] = "images"
    names = _yolo_names(root, [_labels_of(root / folder) for folder in found.values()]) if found else []
    return {split: YoloDataset(images=folder, root=str(root), class_names=names) for split, folder in found.items()}


def _labels_of(images: Path) -> Path:
    return Path(label_path(str(images / "x.jpg"))).parent


def _yolo_names(root: Path, folders: list[Path]) -> list[str]:
    """Return the lines of ``classes.txt``, or else the class ids up to the largest one."""
    for path in [
        root / "classes.txt",
        root / "labels" / "classes.txt",
        *(folder / "classes.txt" for folder in folders),
    ]:
        if path.is_file():
            return [line.strip() for line in read_text(path).splitlines() if line.strip()]
    lines = [
        line
        for folder in folders
        for path in list_files(folder, {".txt"})
        for line in read_text(Path(path)).splitlines()
    ]
    ids = [int(word) for word in (line.split(maxsplit=1)[0] for line in lines if line.strip()) if word.isdecimal()]
    return [str(label) for label in range(max(ids, default=0) + 1)]


# -------------------------------------------------------------------------------------------------------- VOC
def _voc(root: Path) -> dict[str, AnnotatedDataset]:
    for images in ("JPEGImages", "images"):
        if (root / "Annotations").is_dir() and (root / images).is_dir():
            lists = [split for split in _SPLITS if (root / "ImageSets" / "Main" / f"{split}.txt").is_file()]
            if lists:
                return {_SPLITS[name]: VocDataset(images=images, split=name, root=str(root)) for name in lists}
            return {"train": VocDataset(images=images, root=str(root))}
    found: dict[str, AnnotatedDataset] = {}
    for folder in [root, *_folders(root)]:
        if any(folder.glob("*.xml")):
            name = folder.relative_to(root).as_posix()
            found.setdefault(_split_of(_name_in(root, folder)) or "train", VocDataset(name, name, root=str(root)))
    return found
