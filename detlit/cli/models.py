"""``detlit models``: the detectors by name and how large they are."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from detlit.cli.messages import FriendlyErrors
from detlit.models import presets

__all__ = ["Size", "main", "measure", "models"]

_PUBLISHED = {
    "yolo_nas_n": "none",
    "yolo_nas": "non-commercial [1]",
    "ppyoloe": "also commercial [2]",
}
"""For what use SuperGradients licensed the weights it published for a family, or for one of its sizes."""

_NOTES = """\
trained: parameters in training; deployed: after full fusion, as are the GFLOPs of one image, 2 per multiply-add
published weights: use that the licence of SuperGradients' COCO weights allows, fine-tuned ones included
[1] https://github.com/Deci-AI/super-gradients/blob/master/LICENSE.YOLONAS.md
[2] as its maintainers say, https://github.com/Deci-AI/super-gradients/issues/983"""


class Size(NamedTuple):
    """How large a detector is: parameters trained and deployed, floating-point operations of one image."""

    trained: int
    deployed: int
    flops: int


def main(argv: Sequence[str]) -> None:
    """Run ``detlit models``.

    Args:
        argv: the command and its options.
    """
    parser = FriendlyErrors(prog="detlit models", allow_abbrev=False, description="List the detectors.")
    parser.add_function_arguments(models)
    models(**parser.parse_args(list(argv[1:])).as_dict())


def models(num_classes: int = 80, image_size: int = 640) -> None:
    """List the detectors.

    Args:
        num_classes: Number of classes.
        image_size: Side of the square input in pixels, a multiple of 32.
    """
    table = Table(title=f"{num_classes} classes, {image_size}x{image_size} pixels", title_justify="left")
    table.add_column("model", no_wrap=True)
    for heading in ("trained", "deployed", "GFLOPs"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("published weights")
    sizes = {name: measure(name, num_classes, image_size) for name in presets.__all__}
    for name in sorted(sizes, key=lambda name: (_family(name), sizes[name])):
        trained, deployed, flops = sizes[name]
        published = _PUBLISHED.get(name) or _PUBLISHED[_family(name)]
        table.add_row(name, f"{trained / 1e6:.2f} M", f"{deployed / 1e6:.2f} M", f"{flops / 1e9:.1f}", published)
    console = Console(highlight=False)
    console.print(table)
    console.print(_NOTES, markup=False, soft_wrap=True)


def measure(name: str, num_classes: int = 80, image_size: int = 640) -> Size:
    """Return the size of a detector, counted without memory for its weights.

    Args:
        name: a builder in :mod:`detlit.models.presets`.
        num_classes: number of classes.
        image_size: side of the square input in pixels, a multiple of 32.
    """
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        detector = getattr(presets, name)(num_classes).eval()
        trained = _parameters(detector)
        deployed = _parameters(detector.fuse(full=True))
        detector(torch.zeros(1, 3, image_size, image_size))
    return Size(trained, deployed, counter.get_total_flops())


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _family(name: str) -> str:
    return name.rpartition("_")[0]
