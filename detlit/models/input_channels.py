"""Weights trained on images with one number of channels, for images with another."""

import torch
from torch import Tensor

__all__ = ["adapt_input_channels"]


def adapt_input_channels(weight: Tensor, channels: int) -> Tensor:
    """Return the weights of a convolution for inputs with another number of channels.

    More channels than before repeat the old ones in turn, and those that share an old channel share its weight evenly;
    fewer sum them in turn, so that a single channel has the sum of all. Either way an image whose channels are all
    alike gets the same response as before, and so does one whose added channels repeat the old ones.

    Args:
        weight: ``(out, in, kh, kw)``.
        channels: channels of the new inputs.

    Returns:
        ``(out, channels, kh, kw)``.
    """
    new, old = torch.arange(channels).unsqueeze(1), torch.arange(weight.shape[1])
    fewest = min(channels, weight.shape[1])
    belongs = new % fewest == old % fewest
    share = belongs / belongs.sum(dim=0)
    return torch.einsum("no,fohw->fnhw", share.to(weight), weight)
