"""Parameter groups, freezing, learning rate schedules and weight averaging in plain PyTorch."""

from detlit.optim.freezing import freeze_parts, keep_frozen_in_eval
from detlit.optim.parameter_groups import parameter_groups
from detlit.optim.schedules import WarmupCosine, with_total_steps
from detlit.optim.weight_average import WeightAverage

__all__ = [
    "WarmupCosine",
    "WeightAverage",
    "freeze_parts",
    "keep_frozen_in_eval",
    "parameter_groups",
    "with_total_steps",
]
