"""What :class:`~detlit.Predictor` is made of: sources, engines, tiles, results and their files."""

from detlit.prediction.results import Result
from detlit.prediction.sources import Source, expand
from detlit.prediction.tiling import Tiles

__all__ = ["Result", "Source", "Tiles", "expand"]
