"""One way to hand a picture to any of Lightning's loggers."""

from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger
from numpy.typing import NDArray

__all__ = ["log_image"]


def log_image(logger: Logger, name: str, image: NDArray[np.uint8], step: int) -> bool:
    """Give a picture to a logger and tell whether it takes any.

    In this order: a logger's own ``log_image(key, images, step)``, as of Weights & Biases; the ``add_image`` of
    TensorBoard's writer; the ``log_image(run_id, image, artifact_file)`` of MLflow's client. A logger of your own takes
    pictures if it has the first.

    Args:
        logger: of the Trainer.
        name: of the series of pictures, such as ``pictures/val``.
        image: ``(H, W, 3)`` uint8 RGB.
        step: optimizer steps so far.
    """
    if hasattr(logger, "log_image"):
        logger.log_image(key=name, images=[image], step=step)
        return True
    experiment: Any = getattr(logger, "experiment", None)
    if hasattr(experiment, "add_image"):
        experiment.add_image(name, image, step, dataformats="HWC")
    elif hasattr(experiment, "log_image") and hasattr(logger, "run_id"):
        experiment.log_image(logger.run_id, image, artifact_file=f"{name}/step_{step}.png")
    else:
        return False
    return True
