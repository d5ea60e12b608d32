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


def test_names_of_ppyoloe_become_ours() -> None:
    names = {
        "backbone.stem.conv1.seq.bn.weight": "backbone.stem.conv1.bn.weight",
        "backbone.stages.1.conv_down.seq.conv.weight": "backbone.stages.1.downsample.conv.weight",
        "backbone.stages.1.blocks.0.conv2.branch_1x1.bn.bias": (
            "backbone.stages.1.blocks.bottlenecks.0.conv2.branch_1x1.bn.bias"
        ),
        "neck.fpn_stages.0.0.convs.spp.conv.seq.bn.bias": "neck.fpn5.bottlenecks.spp.conv.bn.bias",
        "neck.pan_routes.1.seq.conv.weight": "neck.pan4.resample.conv.weight",
        "module.head.stem_cls.2.fc.bias": "head.levels.2.cls_stem.fc.bias",
    }
    assert list(from_super_gradients(dict.fromkeys(names, torch.zeros(1)))) == list(names.values())


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
