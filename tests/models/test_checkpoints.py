import torch

from detlit.models.checkpoints import from_super_gradients


def renamed(name: str) -> list[str]:
    return list(from_super_gradients({name: torch.zeros(1)}))


def test_names_of_super_gradients_become_ours() -> None:
    assert renamed("backbone.stem.conv.branch_3x3.conv.weight") == ["backbone.stem.branch_3x3.conv.weight"]
    assert renamed("backbone.stage4.blocks.bottlenecks.1.cv2.post_bn.bias") == [
        "backbone.stages.3.blocks.bottlenecks.1.conv2.post_bn.bias"
    ]
    assert renamed("heads.head3.cls_convs.0.seq.bn.weight") == ["head.levels.2.cls_conv.bn.weight"]


def test_wrappers_are_stripped() -> None:
    for prefix in ("module.", "_orig_mod.", "module._orig_mod."):
        assert renamed(f"{prefix}neck.neck4.conv.bn.bias") == ["neck.down2.conv.bn.bias"]


def test_placeholders_are_dropped_and_unknown_names_kept() -> None:
    assert renamed("backbone.stem.conv.rbr_reparam.weight") == []
    assert renamed("neck.neck1.blocks.bottlenecks.0.cv1.id_tensor") == []
    assert renamed("heads.extra") == ["heads.extra"]


def test_values_are_not_copied() -> None:
    value = torch.zeros(2)
    assert from_super_gradients({"heads.head1.reg_pred.bias": value})["head.levels.0.reg_pred.bias"] is value
