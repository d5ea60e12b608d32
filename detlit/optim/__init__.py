"""Parameter groups, freezing, learning rate schedules and weight averaging in plain PyTorch."""

from detlit.optim.freezing import freeze_parts, keep_frozen_in_eval
from detlit.optim.parameter_groups import parameter_groups
from detlit.optim.run_length import stepped_schedule, with_total_steps
from detlit.optim.schedules import WarmupCosine, WarmupExponential, WarmupPoly, WarmupSchedule, WarmupStep
from detlit.optim.weight_average import WeightAverage

__all__ = [
    "WarmupCosine",
    "WarmupExponential",
    "WarmupPoly",
    "WarmupSchedule",
    "WarmupStep",
    "WeightAverage",
    "freeze_parts",
    "keep_frozen_in_eval",
    "parameter_groups",
    "stepped_schedule",
    "with_total_steps",
]
