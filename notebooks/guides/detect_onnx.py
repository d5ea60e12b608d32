"""Detect objects with NumPy and ONNX Runtime alone: python detect_onnx.py model.onnx image.npy, (H, W, 3) uint8 RGB.

The file: detlit export --ckpt_path best.ckpt --output model.onnx --nms batch, or detlit quantize ... --onnx model.onnx
--nms batch. A picture: numpy.save("image.npy", numpy.asarray(PIL.Image.open("image.jpg").convert("RGB"))).
"""

import json
import sys

import numpy as np
import onnxruntime


def resize(image, height, width):
    """Bilinear, with the centres of pixels at halves, as OpenCV does it."""
    for axis, length in ((0, height), (1, width)):
        at = ((np.arange(length) + 0.5) * image.shape[axis] / length - 0.5).clip(0, image.shape[axis] - 1)
        low = np.floor(at).astype(int)
        share = (at - low).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        upper = image.take(np.minimum(low + 1, image.shape[axis] - 1), axis)
        image = image.take(low, axis) * (1 - share) + upper * share
    return np.rint(image).astype(np.uint8)


def detect(session, image):
    """Return (class name, score, [x1, y1, x2, y2] in pixels of the image) of each detection, best first."""
    metadata = session.get_modelmeta().custom_metadata_map
    if metadata.get("nms") != "batch":
        sys.exit("this ONNX file does not hold its suppression as read here: export it with --nms batch.")
    how, names = json.loads(metadata["preprocessing"]), json.loads(metadata["class_names"])
    (height, width), (fit_height, fit_width) = how["size"], how["content_size"] or how["size"]
    scale = np.array([fit_height, fit_width]) / image.shape[:2]
    scale = scale.min() if how["keep_ratio"] else scale
    sides = [round(side) for side in np.multiply(image.shape[:2], scale).tolist()]
    top, left = ((height - sides[0]) // 2, (width - sides[1]) // 2) if how["anchor"] == "center" else (0, 0)
    canvas = np.full((height, width, 3), how["pad_value"], dtype=np.uint8)
    canvas[top : top + sides[0], left : left + sides[1]] = resize(image, *sides)
    count, boxes, scores, labels = session.run(None, {"images": canvas.transpose(2, 0, 1)[None]})
    scale = np.array([sides[1], sides[0]] * 2) / np.array([image.shape[1], image.shape[0]] * 2)
    boxes = (boxes[0] - [left, top, left, top]) / scale
    return [(names[labels[0, i]], float(scores[0, i]), boxes[i].tolist()) for i in range(count[0, 0])]


if __name__ == "__main__":
    if len(sys.argv) != 3 or not sys.argv[2].endswith(".npy"):
        sys.exit("give an ONNX file and an image as NumPy saves it: python detect_onnx.py model.onnx image.npy")
    for name, score, box in detect(onnxruntime.InferenceSession(sys.argv[1]), np.load(sys.argv[2])):
        print(f"{name} {score:.3f}", *(f"{side:.1f}" for side in box))
