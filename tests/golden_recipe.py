"""Recipes of the pseudo-random inputs and weights the golden numbers were made from (numpy and the standard library).

Everything is float64 numpy, cast to float32 at the very end. ``np.random.RandomState`` (the legacy MT19937) is used
because numpy's compatibility policy freezes its stream.
"""
# ruff: noqa: N806

import zlib

import numpy as np


def seed_of(text):
    return zlib.crc32(text.encode("utf-8")) & 0xFFFFFFFF


PRED_LAYERS = (".cls_pred.", ".reg_pred.", ".pred_cls.", ".pred_reg.", ".cls_preds.", ".reg_preds.", ".obj_preds.")

# (gain, head_gain) per (model, mode).  gain scales the variance of every >=2-d weight, head_gain multiplies it
# once more for the last prediction convolutions (keys containing one of PRED_LAYERS).
GAINS = {
    "yolo_nas_s": {"eval": (0.5, 100.0), "train": (0.5, 6.0)},
    "yolo_nas_m": {"eval": (0.6, 16.0), "train": (0.5, 6.0)},
    "yolo_nas_l": {"eval": (0.45, 40.0), "train": (0.5, 6.0)},
    "ppyoloe_s": {"eval": (2.5, 100.0), "train": (1.0, 4.0)},
    "ppyoloe_m": {"eval": (2.2, 100.0), "train": (1.0, 4.0)},
    "yolox_n": {"eval": (2.0, 100.0), "train": (1.0, 1.5)},
    "yolox_s": {"eval": (2.0, 100.0), "train": (1.0, 1.5)},
}


def init_array(key, shape, gain, head_gain):
    """Deterministic value of one state_dict entry from its key name, its shape and two documented constants."""
    shape = tuple(int(s) for s in shape)
    rs = np.random.RandomState(seed_of(key))
    leaf = key.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return np.zeros(shape, dtype=np.int64)
    if leaf == "running_mean":
        v = 0.05 * rs.standard_normal(shape)
    elif leaf == "running_var":
        v = rs.uniform(0.8, 1.2, size=shape)
    elif leaf == "weight" and len(shape) >= 2:  # every convolution / linear / transposed convolution
        fan_in = int(np.prod(shape[1:]))  # literally prod(shape[1:]), also for ConvTranspose2d
        g = gain * head_gain if any(t in key for t in PRED_LAYERS) else gain
        v = rs.standard_normal(shape) * np.sqrt(g / fan_in)
    elif leaf == "weight":  # 1-d weight = BatchNorm gamma
        v = rs.uniform(0.8, 1.2, size=shape)
    elif leaf == "bias":
        v = 0.05 * rs.standard_normal(shape)
    else:  # e.g. QARepVGG "alpha"
        v = 1.0 + 0.1 * rs.standard_normal(shape)
    return np.asarray(v).astype(np.float32)


def init_state(shapes, model, mode):
    """shapes: dict key -> shape; model e.g. "yolo_nas_s"; mode "eval" or "train".  dict key -> numpy array."""
    gain, head_gain = GAINS[model][mode]
    return {k: init_array(k, s, gain, head_gain) for k, s in shapes.items()}


def image_batch(tag, b, h, w):
    """Network input, uniform [0,1) float32, NCHW."""
    rs = np.random.RandomState(seed_of("input:" + tag))
    return rs.uniform(0.0, 1.0, size=(b, 3, h, w)).astype(np.float32)


# ----------------------------------------------------------------------------------------------- loss inputs
def anchor_count(hw, strides=(8, 16, 32)):
    return sum((hw[0] // s) * (hw[1] // s) for s in strides)


def loss_inputs(tag, batch, hw, num_classes, reg_max=16, cls_mean=-2.5):
    """Raw network outputs: class logits [B, L, C] and distance logits [B, L, 4*(reg_max+1)], float32.

    The layout of the last axis of the distribution is [side(l,t,r,b), bin(0..reg_max)]."""
    rs = np.random.RandomState(seed_of("loss:" + tag))
    L = anchor_count(hw)
    cls = cls_mean + 1.5 * rs.standard_normal((batch, L, num_classes))
    centre = rs.uniform(0.0, 6.0, size=(batch, L, 4, 1))
    k = np.arange(reg_max + 1, dtype=np.float64).reshape(1, 1, 1, -1)
    dist = -((k - centre) ** 2) / 2.25 + 0.3 * rs.standard_normal((batch, L, 4, reg_max + 1))
    return cls.astype(np.float32), dist.reshape(batch, L, 4 * (reg_max + 1)).astype(np.float32)


def subset_indices(tag, numel, n):
    """n distinct flat indices used whenever only a random subset of a big array is stored."""
    return np.random.RandomState(seed_of("subset:" + tag)).permutation(numel)[:n]


# ------------------------------------------------------------------------------------- post-prediction inputs
def post_inputs(tag="main", batch=2, n=700, nc=20, size=640.0):
    """(boxes [B,n,4] xyxy, scores [B,n,nc]) float32.  Boxes are jittered copies of 40 cluster boxes per image."""
    rs = np.random.RandomState(seed_of("post:" + tag))
    boxes = np.zeros((batch, n, 4))
    scores = np.zeros((batch, n, nc))
    for b in range(batch):
        ctr = rs.uniform(40, size - 40, size=(40, 2))
        wh = rs.uniform(20, 160, size=(40, 2))
        cls = rs.randint(0, nc, size=40)
        which = rs.randint(0, 40, size=n)
        c = ctr[which] + 0.12 * wh[which] * rs.standard_normal((n, 2))
        w = wh[which] * rs.uniform(0.75, 1.3, size=(n, 2))
        boxes[b, :, :2] = c - w / 2
        boxes[b, :, 2:] = c + w / 2
        s = rs.uniform(0, 1, size=(n, nc)) ** 6 * 0.6
        s[np.arange(n), cls[which]] = rs.uniform(0.05, 0.98, size=n)
        scores[b] = s
    scores = scores.astype(np.float32)
    scores[0, 10, 3] = 0.25  # exactly on the 0.25 threshold and not the row maximum (multi-label uses >)
    scores[0, 11, :] *= np.float32(0.2)
    scores[0, 11, 5] = 0.25  # row maximum exactly on the threshold (single-label uses >=)
    return boxes.astype(np.float32), scores


def image_u8(h, w):
    """HWC uint8 random test image."""
    return np.random.RandomState(seed_of(f"image:{h}x{w}")).randint(0, 256, size=(h, w, 3)).astype(np.uint8)
