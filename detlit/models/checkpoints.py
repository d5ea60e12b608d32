"""State dicts of other libraries in the names of detlit's modules."""

import re
from collections.abc import Mapping

from torch import Tensor

__all__ = ["from_super_gradients"]

_WRAPPERS = re.compile(r"^(?:module\.|_orig_mod\.)+")  # DistributedDataParallel, torch.compile
_WITHOUT_EFFECT = re.compile(r"\.(?:rbr_reparam\.\w+|id_tensor)$")  # placeholders of the fused convolution

_YOLO_NAS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^backbone\.stem\.conv\.", "backbone.stem."),
        (r"^backbone\.context_module\.", "backbone.spp."),
        (r"^neck\.neck1\.", "neck.up1."),
        (r"^neck\.neck2\.", "neck.up2."),
        (r"^neck\.neck3\.", "neck.down1."),
        (r"^neck\.neck4\.", "neck.down2."),
        (r"\.reduce_skip1\.", ".reduce_same."),
        (r"\.reduce_skip2\.", ".reduce_fine."),
        (r"\.reduce_after_concat\.", ".reduce_concat."),
        (r"\.cv([12])\.", r".conv\1."),
        (r"\.(cls|reg)_convs\.0\.seq\.", r".\1_conv."),
        (r"\.stem\.seq\.", ".stem."),
    )
)
_COUNTED_FROM_1 = (
    (re.compile(r"^backbone\.stage(\d+)\."), "backbone.stages"),
    (re.compile(r"^heads\.head(\d+)\."), "head.levels"),
)


def from_super_gradients(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a YOLO-NAS state dict of SuperGradients under detlit's names; the values are the same tensors.

    Left out is what has no effect on the output: the placeholders ``*.rbr_reparam.*`` and ``*.id_tensor`` of branches
    that are not fused. A name without a counterpart is kept, so that ``load_state_dict`` reports it.
    """
    return {_renamed(name): value for name, value in state_dict.items() if not _WITHOUT_EFFECT.search(name)}


def _renamed(name: str) -> str:
    name = _WRAPPERS.sub("", name)
    for pattern, modules in _COUNTED_FROM_1:
        if match := pattern.match(name):
            name = f"{modules}.{int(match[1]) - 1}.{name[match.end() :]}"
    for pattern, replacement in _YOLO_NAS:
        name = pattern.sub(replacement, name)
    return name
