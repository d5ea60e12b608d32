"""Lightning callbacks. They are imported when first used, and each works on any LightningModule."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOME_OF = {
    "BestWeightsAverage": "best_weights_average",
    "Checkpoint": "checkpoints",
    "CloseMosaic": "close_mosaic",
    "DenseEvaluation": "dense_evaluation",
    "DetectionEarlyStopping": "early_stopping",
    "DetectionVisualization": "visualization",
    "EMA": "ema",
    "EvaluationReport": "evaluation_report",
    "ExactResume": "exact_resume",
    "ExportCheck": "export_check",
    "FreezeBackbone": "stages",
    "GracefulStop": "graceful_stop",
    "LRWarmup": "lr_warmup",
    "LargestBatchSize": "batch_size",
    "LearningGuard": "learning_guard",
    "MonitorGuard": "monitor_guard",
    "NonFiniteGuard": "non_finite_guard",
    "OutOfMemoryHelp": "out_of_memory",
    "PlotMetrics": "plot_metrics",
    "PreciseBatchNorm": "precise_batch_norm",
    "QuantizationAwareTraining": "quantization",
    "RunSummary": "summary",
    "RunTable": "run_table",
    "StageSwitch": "stages",
    "StaticAssignerSwitch": "stages",
    "StepTimer": "step_timer",
    "TrainingStopped": "graceful_stop",
    "default_callbacks": "defaults",
}

__all__ = [
    "EMA",
    "BestWeightsAverage",
    "Checkpoint",
    "CloseMosaic",
    "DenseEvaluation",
    "DetectionEarlyStopping",
    "DetectionVisualization",
    "EvaluationReport",
    "ExactResume",
    "ExportCheck",
    "FreezeBackbone",
    "GracefulStop",
    "LRWarmup",
    "LargestBatchSize",
    "LearningGuard",
    "MonitorGuard",
    "NonFiniteGuard",
    "OutOfMemoryHelp",
    "PlotMetrics",
    "PreciseBatchNorm",
    "QuantizationAwareTraining",
    "RunSummary",
    "RunTable",
    "StageSwitch",
    "StaticAssignerSwitch",
    "StepTimer",
    "TrainingStopped",
    "default_callbacks",
]

if TYPE_CHECKING:
    from detlit.callbacks.batch_size import LargestBatchSize
    from detlit.callbacks.best_weights_average import BestWeightsAverage
    from detlit.callbacks.checkpoints import Checkpoint
    from detlit.callbacks.close_mosaic import CloseMosaic
    from detlit.callbacks.defaults import default_callbacks
    from detlit.callbacks.dense_evaluation import DenseEvaluation
    from detlit.callbacks.early_stopping import DetectionEarlyStopping
    from detlit.callbacks.ema import EMA
    from detlit.callbacks.evaluation_report import EvaluationReport
    from detlit.callbacks.exact_resume import ExactResume
    from detlit.callbacks.export_check import ExportCheck
    from detlit.callbacks.graceful_stop import GracefulStop, TrainingStopped
    from detlit.callbacks.learning_guard import LearningGuard
    from detlit.callbacks.lr_warmup import LRWarmup
    from detlit.callbacks.monitor_guard import MonitorGuard
    from detlit.callbacks.non_finite_guard import NonFiniteGuard
    from detlit.callbacks.out_of_memory import OutOfMemoryHelp
    from detlit.callbacks.plot_metrics import PlotMetrics
    from detlit.callbacks.precise_batch_norm import PreciseBatchNorm
    from detlit.callbacks.quantization import QuantizationAwareTraining
    from detlit.callbacks.run_table import RunTable
    from detlit.callbacks.stages import FreezeBackbone, StageSwitch, StaticAssignerSwitch
    from detlit.callbacks.step_timer import StepTimer
    from detlit.callbacks.summary import RunSummary
    from detlit.callbacks.visualization import DetectionVisualization


def __getattr__(name: str) -> Any:
    """Import a callback from its home (PEP 562)."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
