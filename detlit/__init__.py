"""Object detection on PyTorch Lightning: train, validate, quantize and ship YOLO-NAS and PP-YOLOE class detectors."""

__version__ = "0.1.0.dev0"
