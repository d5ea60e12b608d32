"""The detector: backbone, neck and head, and the normalization of their input."""

from collections.abc import Callable, Sequence
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from detlit.errors import ConfigurationError
from detlit.models.backbones import Backbone
from detlit.models.heads import Head
from detlit.models.layers import InputNormalization
from detlit.models.layers.fusion import Fusable, require_eval
from detlit.models.lean import lean_activations
from detlit.models.necks import Neck
from detlit.models.quantized import DetectorQuantization
from detlit.spec import Recorded, plain
from detlit.structures import Preprocessing, RawPredictions

__all__ = ["Detector"]

Fusion = Literal["partial", "full"]
"""How far a detector is fused, see :meth:`Detector.fuse`."""


class Detector(Recorded, nn.Module):
    """Images to raw predictions, the same in training and evaluation.

    Neck and head are given as factories, because their input follows from the backbone and ``num_classes``:
    ``functools.partial(YoloNASNeck, stage_channels=..., ...)`` in a script, ``class_path`` and ``init_args`` in YAML.

    Args:
        backbone: makes feature maps, from fine to coarse.
        neck: makes the neck from the ``out_channels`` and ``strides`` of the backbone.
        head: makes the head from the ``out_channels`` and ``strides`` of the neck and ``num_classes``.
        num_classes: number of classes.
        preprocessing: how images become input; channel order, mean and std are applied here. ``None`` for the defaults.
        fused: fuse the new detector, so that it can hold the weights of one that :meth:`fuse` was called on.
        quantization: quantize the new detector, so that it can hold the weights of one that :meth:`quantize` was called
            on.
        lean_memory: train with less memory for a little more time, with the same gradients: activations that are cheap
            to compute are not saved for the backward pass, see :mod:`detlit.models.lean`. Without effect in evaluation,
            without gradients, and in a graph that ``torch.compile`` or ``torch.export`` captures.

    Raises:
        ConfigurationError: ``fused`` is neither ``None`` nor ``"partial"`` nor ``"full"``.
    """

    def __init__(
        self,
        backbone: Backbone,
        neck: Callable[[Sequence[int], Sequence[int]], Neck],
        head: Callable[[Sequence[int], Sequence[int], int], Head],
        num_classes: int = 80,
        preprocessing: Preprocessing | None = None,
        fused: Fusion | None = None,
        lean_memory: bool = False,
        quantization: DetectorQuantization | None = None,
    ) -> None:
        super().__init__()
        self.preprocessing = preprocessing or Preprocessing()
        self.normalization = InputNormalization(self.preprocessing, backbone.in_channels)
        self.backbone = backbone
        self.neck = neck(backbone.out_channels, backbone.strides)
        self.head = head(self.neck.out_channels, self.neck.strides, num_classes)
        self.lean_memory = lean_memory
        self.fused: Fusion | None = None
        if fused not in (None, *get_args(Fusion)):
            raise ConfigurationError(f"fused={fused!r} is no kind of fusion: choose 'partial', 'full' or None.")
        if fused is not None:
            self.eval().fuse(full=fused == "full").train()
        self.quantization: DetectorQuantization | None = None
        if quantization is not None:
            self.quantize(quantization)

    @property
    def num_classes(self) -> int:
        """Number of classes of the head."""
        return self.head.num_classes

    def set_preprocessing(self, preprocessing: Preprocessing) -> None:
        """Change how images become input, as weights that were trained otherwise need; the record follows."""
        self.preprocessing = preprocessing
        self.normalization = InputNormalization(preprocessing, self.backbone.in_channels).to(next(self.parameters()))
        self._record("preprocessing", preprocessing)

    def fuse(self, full: bool = False) -> "Detector":
        """Replace layers, in place, by fewer that compute the same in evaluation; the record follows.

        Partial fusion turns the branches of every re-parameterisable block into one convolution and keeps all other
        normalizations: the detector can be trained and quantized further, see https://arxiv.org/abs/2212.01593. Full
        fusion also folds every normalization after a convolution into it, which is fastest and for inference only.
        Partial fusion may be followed by full; the same fusion again changes nothing. The layers of a foreign backbone
        stay as they are, unless they derive from :class:`~detlit.models.layers.fusion.Fusable`.

        Args:
            full: fuse fully.

        Returns:
            The detector itself.

        Raises:
            ConfigurationError: the detector is in training mode, or fully fused and asked for partial fusion.
        """
        require_eval(self)
        if self.fused == "full" and not full:
            raise ConfigurationError(
                "a fully fused detector has no normalization left to keep in partial fusion: "
                "build the detector again and fuse it partially."
            )
        for layer in [module for module in self.modules() if isinstance(module, Fusable)]:
            layer.fuse(full)
        self.fused = "full" if full else "partial"
        self._record("fused", self.fused)
        return self

    def quantize(self, quantization: DetectorQuantization) -> "Detector":
        """Replace layers, in place, by ones that round as integers do, after partial fusion; the record follows.

        They round activations once these have ranges, see :func:`detlit.quantization.calibrate`.

        Args:
            quantization: which layers, and how: :class:`~detlit.quantization.Quantization`.

        Returns:
            The detector itself.

        Raises:
            ConfigurationError: the detector is quantized already, or the arguments do not fit it.
        """
        was_training = self.training
        self.eval()
        if self.fused is None:
            self.fuse()
        quantization.apply(self)
        self.train(was_training)
        self.quantization = quantization
        self._record("quantization", quantization)
        return self

    def _record(self, name: str, value: object) -> None:
        """Note what a constructor argument has become, for whoever rebuilds the detector."""
        arguments = self.__dict__["_init_arguments"]
        if name in arguments:  # the constructor of a subclass may not take it
            arguments[name] = plain(value)

    def forward(self, images: Tensor) -> RawPredictions:
        """Predict on a batch.

        Args:
            images: ``(B, in_channels, H, W)``, RGB where those are 3, uint8 in 0 to 255 or floating point in [0, 1], on
                the detector's device.

        Raises:
            ConfigurationError: another shape or type, or sides that are no multiples of the largest stride.
        """
        check_shape(images, self.backbone.in_channels, max(*self.backbone.strides, *self.neck.strides))
        inputs = self.normalization(images, next(self.parameters()).dtype)
        saves_activations = self.training and torch.is_grad_enabled() and not torch.compiler.is_compiling()
        if self.lean_memory and saves_activations:
            with lean_activations():
                return self._predict(inputs)
        return self._predict(inputs)

    def _predict(self, inputs: Tensor) -> RawPredictions:
        return cast(RawPredictions, self.head(self.neck(self.backbone(inputs))))


def check_shape(images: Tensor, in_channels: int, stride: int) -> None:
    """Refuse images that are not ``(B, in_channels, H, W)`` with sides that are positive multiples of ``stride``.

    Raises:
        ConfigurationError: see above.
    """
    if images.ndim != 4 or images.shape[1] != in_channels:
        raise ConfigurationError(
            f"images of shape {tuple(images.shape)} are no batch of images with {in_channels} channels: "
            f"pass (B, {in_channels}, H, W), channels first."
        )
    height, width = images.shape[2:]
    if min(height, width) < stride or height % stride or width % stride:
        raise ConfigurationError(
            f"images of {height}x{width} pixels do not fit the detector's strides: "
            f"pad or resize both sides to positive multiples of {stride}."
        )
