"""Arithmetic on boxes, anchors and targets: pure functions on tensors."""
