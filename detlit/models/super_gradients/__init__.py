"""Weights that SuperGradients trained or published: YOLO-NAS and PP-YOLOE."""

from detlit.models.super_gradients.files import weights_from_super_gradients
from detlit.models.super_gradients.names import from_super_gradients
from detlit.models.super_gradients.processing import preprocessing_from_super_gradients

__all__ = ["from_super_gradients", "preprocessing_from_super_gradients", "weights_from_super_gradients"]
