"""State dicts of SuperGradients in the names of detlit's modules."""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

__all__ = ["from_super_gradients"]

_WRAPPERS = re.compile(r"^(?:module\.|_orig_mod\.)+")  # DistributedDataParallel, torch.compile
_WITHOUT_EFFECT = re.compile(r"\.(?:rbr_reparam\.\w+|id_tensor)$")  # placeholders of the fused convolution


def _rules(*pairs: tuple[str, str]) -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple((re.compile(pattern), replacement) for pattern, replacement in pairs)


_YOLO_NAS = _rules(
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
_COUNTED_FROM_1 = (
    (re.compile(r"^backbone\.stage(\d+)\."), "backbone.stages"),
    (re.compile(r"^heads\.head(\d+)\."), "head.levels"),
)
_PPYOLOE = _rules(
    (r"\.seq\.", "."),
    (r"^(backbone\.stages\.\d+)\.conv_down\.", r"\1.downsample."),
    (r"^(backbone\.stages\.\d+)\.blocks\.", r"\1.blocks.bottlenecks."),
    (r"^(backbone\.stages\.\d+)\.(conv\d)\.", r"\1.blocks.\2."),
    (r"^(backbone\.stages\.\d+)\.attn\.", r"\1.blocks.attention."),
    (r"^neck\.fpn_stages\.0\.0\.", "neck.fpn5."),
    (r"^neck\.fpn_stages\.1\.0\.", "neck.fpn4.blocks."),
    (r"^neck\.fpn_stages\.2\.0\.", "neck.fpn3.blocks."),
    (r"^neck\.fpn_routes\.0\.", "neck.fpn4.resample.conv."),
    (r"^neck\.fpn_routes\.1\.", "neck.fpn3.resample.conv."),
    (r"^neck\.pan_stages\.0\.0\.", "neck.pan5.blocks."),
    (r"^neck\.pan_stages\.1\.0\.", "neck.pan4.blocks."),
    (r"^neck\.pan_routes\.0\.", "neck.pan5.resample."),
    (r"^neck\.pan_routes\.1\.", "neck.pan4.resample."),
    (r"\.convs\.", ".bottlenecks."),
    (r"^head\.(stem|pred)_(cls|reg)\.(\d+)\.", r"head.levels.\3.\2_\1."),
)
_ONLY_IN_PPYOLOE = re.compile(r"^(?:neck\.(?:fpn|pan)_|head\.(?:stem|pred)_)")


def from_super_gradients(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a YOLO-NAS or PP-YOLOE state dict of SuperGradients under detlit's names; the values are the same tensors.

    Left out is what has no effect on the output: the placeholders ``*.rbr_reparam.*`` and ``*.id_tensor`` of branches
    that are not fused. A name without a counterpart is kept, so that ``load_state_dict`` reports it.
    """
    values = {_WRAPPERS.sub("", name): value for name, value in state_dict.items() if not _WITHOUT_EFFECT.search(name)}
    rules = _PPYOLOE if any(map(_ONLY_IN_PPYOLOE.match, values)) else _YOLO_NAS
    return {_renamed(name, rules): value for name, value in values.items()}


def _renamed(name: str, rules: Iterable[tuple[re.Pattern[str], str]]) -> str:
    for pattern, modules in _COUNTED_FROM_1:
        if match := pattern.match(name):
            name = f"{modules}.{int(match[1]) - 1}.{name[match.end() :]}"
    for pattern, replacement in rules:
        name = pattern.sub(replacement, name)
    return name
