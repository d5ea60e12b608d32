"""The kinds of faults that are looked for."""

from typing import Literal, NamedTuple

__all__ = ["KINDS", "Kind", "Severity"]

Severity = Literal["error", "warning", "note"]


class Kind(NamedTuple):
    """A kind of fault: how bad it is, one of them in words, several in words, and what to do."""

    severity: Severity
    one: str
    many: str
    cure: str


KINDS = {
    # files and records
    "unreadable-annotations": Kind(
        "error", "annotation file that cannot be read", "annotation files that cannot be read", "export them again"
    ),
    "no-test-split": Kind(
        "note", "test split that is not there", "test splits that are not there", "none is needed to train and validate"
    ),
    "malformed-record": Kind(
        "error", "entry that cannot be read", "entries that cannot be read", "correct or remove them"
    ),
    "repeated-image": Kind("error", "image listed twice", "images listed twice", "list each image once, with one id"),
    "repeated-id": Kind(
        "warning",
        "annotation id that is used twice",
        "annotation ids that are used twice",
        "make them unique: pycocotools loses all but one",
    ),
    "lost-labels": Kind(
        "warning",
        "label file without an image",
        "label files without images",
        "restore the images, or correct the names: their objects are not trained on",
    ),
    "unlisted-image": Kind(
        "error",
        "annotation of an image that is not listed",
        "annotations of images that are not listed",
        "list the images or remove the annotations",
    ),
    "undeclared-class": Kind(
        "error",
        "annotation of a class that is not declared",
        "annotations of classes that are not declared",
        "declare the class or correct the annotations",
    ),
    "unannotated-file": Kind(
        "note",
        "image file that the annotations do not mention",
        "image files that the annotations do not mention",
        "they are not trained on: annotate them, or list them without objects as background",
    ),
    # classes
    "class-of-one-split": Kind(
        "error",
        "class that the first split does not declare",
        "classes that the first split does not declare",
        "correct the name, or list all classes in data.class_names",
    ),
    "class-order": Kind(
        "warning",
        "split that numbers the classes in another way",
        "splits that number the classes in another way",
        "names count here, numbers in most tools: see that the names are right, and use one order",
    ),
    "similar-classes": Kind(
        "warning",
        "pair of class names that differ in case or spaces only",
        "pairs of class names that differ in case or spaces only",
        "merge them if they mean the same",
    ),
    "untrained-class": Kind(
        "warning",
        "class with objects in other splits but none in train",
        "classes with objects in other splits but none in train",
        "it cannot be learnt: add training images, or leave the class out",
    ),
    "unused-class": Kind(
        "note",
        "class without objects",
        "classes without objects",
        "list only the others in data.class_names, unless images are to come",
    ),
    # boxes
    "nan-box": Kind("error", "box that is NaN or infinite", "boxes that are NaN or infinite", "correct or remove them"),
    "other-format": Kind(
        "error",
        "box in another format",
        "boxes in another format",
        "convert the annotations: of the data sets only lists and Hugging Face's can name a box_format",
    ),
    "normalised-box": Kind(
        "error",
        "box that looks normalised: all its numbers are 0 to 1",
        "boxes that look normalised: all their numbers are 0 to 1",
        "multiply them by the width and height of the image",
    ),
    "pixel-box": Kind(
        "error",
        "box that looks like pixels where fractions of the image belong",
        "boxes that look like pixels where fractions of the image belong",
        "divide them by the width and height of the image",
    ),
    "negative-box": Kind(
        "error",
        "box of negative width or height",
        "boxes of negative width or height",
        "swap their corners; they are not trained on",
    ),
    "zero-area-box": Kind(
        "warning", "box without area", "boxes without area", "remove them; they are not trained on but evaluated"
    ),
    "outside-box": Kind(
        "warning",
        "box outside its image",
        "boxes outside their images",
        "correct or remove them; they are not trained on but evaluated",
    ),
    "overhanging-box": Kind(
        "warning",
        "box that reaches more than 2 pixels out of its image",
        "boxes that reach more than 2 pixels out of their images",
        "correct them; they are cut off at the edge",
    ),
    "oversized-box": Kind(
        "warning",
        "box larger than its image",
        "boxes larger than their images",
        "correct them; they are cut off at the edge",
    ),
    "whole-image-box": Kind(
        "note", "box around a whole image", "boxes around whole images", "right for close-ups, wrong for image labels"
    ),
    "sliver-box": Kind(
        "warning",
        "box more than 30 times longer than wide",
        "boxes more than 30 times longer than wide",
        "see that they hold an object",
    ),
    "repeated-box": Kind(
        "warning",
        "box that repeats another of its class",
        "boxes that repeat others of their class",
        "remove them: each counts as an object",
    ),
    "two-classes": Kind(
        "warning",
        "box that another class has too",
        "boxes that another class has too",
        "keep the right class; a detector learns both halfway",
    ),
    "small-object": Kind(
        "note",
        "object less than 8 pixels high or wide in the network input",
        "objects less than 8 pixels high or wide in the network input",
        "train with larger images, or do not expect to find them",
    ),
    # images
    "missing-image": Kind("error", "missing image", "missing images", "restore them or remove their annotations"),
    "unreadable-image": Kind("error", "unreadable image", "unreadable images", "replace or remove them"),
    "size-mismatch": Kind(
        "error",
        "image of another size than annotated",
        "images of another size than annotated",
        "restore the images that were annotated, or scale the boxes",
    ),
    "leaked-image": Kind(
        "error",
        "image that is in two splits",
        "images that are in two splits",
        "keep it in one: scores on images that were trained on mean nothing",
    ),
    "repeated-file": Kind(
        "warning",
        "image that is there twice in a split",
        "images that are there twice in a split",
        "remove one, or join their annotations",
    ),
    "near-duplicate": Kind(
        "warning",
        "pair of nearly equal images in two splits",
        "pairs of nearly equal images in two splits",
        "keep both in one split: they make scores look better than they are",
    ),
}
"""Every kind of fault that is looked for. Errors stop training or falsify it; warnings are most likely mistakes; notes
are worth knowing. In words, a count precedes them."""
