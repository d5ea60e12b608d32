"""Object detection on PyTorch Lightning: train, validate, quantize and ship YOLO-NAS and PP-YOLOE class detectors.

The public names are imported when they are first used, so that ``import detlit`` costs nothing.
"""

# ruff: noqa: F401 - ruff cannot read the computed __all__ below

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

_HOME_OF = {
    "ATSSAssigner": "detlit.assigners",
    "Batch": "detlit.structures",
    "BestWeightsAverage": "detlit.callbacks",
    "Checkpoint": "detlit.callbacks",
    "CloseMosaic": "detlit.callbacks",
    "CocoDataset": "detlit.data",
    "CocoMeanAveragePrecision": "detlit.metrics",
    "ConcatDataset": "detlit.data",
    "DenseEvaluation": "detlit.callbacks",
    "Detection": "detlit.structures",
    "DetectionDataModule": "detlit.data",
    "DetectionDataset": "detlit.data",
    "DetectionEarlyStopping": "detlit.callbacks",
    "DetectionMetrics": "detlit.metrics",
    "DetectionModule": "detlit.module",
    "DetectionVisualization": "detlit.callbacks",
    "Detector": "detlit.models",
    "EMA": "detlit.callbacks",
    "ExportCheck": "detlit.callbacks",
    "EvaluationReport": "detlit.callbacks",
    "ExactResume": "detlit.callbacks",
    "FreezeBackbone": "detlit.callbacks",
    "GracefulStop": "detlit.callbacks",
    "HuggingFaceDataset": "detlit.data",
    "LRWarmup": "detlit.callbacks",
    "LargestBatchSize": "detlit.callbacks",
    "LearningGuard": "detlit.callbacks",
    "ListDataset": "detlit.data",
    "MatrixNMS": "detlit.postprocess",
    "MonitorGuard": "detlit.callbacks",
    "NMSPostPredictionCallback": "detlit.postprocess",
    "NonFiniteGuard": "detlit.callbacks",
    "OutOfMemoryHelp": "detlit.callbacks",
    "PPYoloELoss": "detlit.losses",
    "PlotMetrics": "detlit.callbacks",
    "PreciseBatchNorm": "detlit.callbacks",
    "Predictor": "detlit.predictor",
    "Preprocessing": "detlit.structures",
    "QualityReport": "detlit.metrics",
    "Quantization": "detlit.quantization",
    "QuantizationAwareTraining": "detlit.callbacks",
    "RunSummary": "detlit.callbacks",
    "RunTable": "detlit.callbacks",
    "ShapesDataset": "detlit.data",
    "StageSwitch": "detlit.callbacks",
    "StaticAssignerSwitch": "detlit.callbacks",
    "StepTimer": "detlit.callbacks",
    "Target": "detlit.structures",
    "TaskAlignedAssigner": "detlit.assigners",
    "Tiles": "detlit.prediction",
    "VocDataset": "detlit.data",
    "WarmupCosine": "detlit.optim",
    "WarmupExponential": "detlit.optim",
    "WarmupPoly": "detlit.optim",
    "WarmupSchedule": "detlit.optim",
    "WarmupStep": "detlit.optim",
    "YoloDataset": "detlit.data",
    "default_callbacks": "detlit.callbacks",
    "export_file": "detlit.export",
    "export_onnx": "detlit.export",
    "ppyoloe_l": "detlit.models",
    "ppyoloe_m": "detlit.models",
    "ppyoloe_s": "detlit.models",
    "ppyoloe_x": "detlit.models",
    "quantize": "detlit.quantization",
    "yolo_nas_l": "detlit.models",
    "yolo_nas_m": "detlit.models",
    "yolo_nas_n": "detlit.models",
    "yolo_nas_s": "detlit.models",
}

__all__ = ["__version__", *sorted(_HOME_OF)]

if TYPE_CHECKING:
    from detlit.assigners import ATSSAssigner, TaskAlignedAssigner
    from detlit.callbacks import (
        EMA,
        BestWeightsAverage,
        Checkpoint,
        CloseMosaic,
        DenseEvaluation,
        DetectionEarlyStopping,
        DetectionVisualization,
        EvaluationReport,
        ExactResume,
        ExportCheck,
        FreezeBackbone,
        GracefulStop,
        LargestBatchSize,
        LearningGuard,
        LRWarmup,
        MonitorGuard,
        NonFiniteGuard,
        OutOfMemoryHelp,
        PlotMetrics,
        PreciseBatchNorm,
        QuantizationAwareTraining,
        RunSummary,
        RunTable,
        StageSwitch,
        StaticAssignerSwitch,
        StepTimer,
        default_callbacks,
    )
    from detlit.data import (
        CocoDataset,
        ConcatDataset,
        DetectionDataModule,
        DetectionDataset,
        HuggingFaceDataset,
        ListDataset,
        ShapesDataset,
        VocDataset,
        YoloDataset,
    )
    from detlit.export import export_file, export_onnx
    from detlit.losses import PPYoloELoss
    from detlit.metrics import CocoMeanAveragePrecision, DetectionMetrics, QualityReport
    from detlit.models import (
        Detector,
        ppyoloe_l,
        ppyoloe_m,
        ppyoloe_s,
        ppyoloe_x,
        yolo_nas_l,
        yolo_nas_m,
        yolo_nas_n,
        yolo_nas_s,
    )
    from detlit.module import DetectionModule
    from detlit.optim import WarmupCosine, WarmupExponential, WarmupPoly, WarmupSchedule, WarmupStep
    from detlit.postprocess import MatrixNMS, NMSPostPredictionCallback
    from detlit.prediction import Tiles
    from detlit.predictor import Predictor
    from detlit.quantization import Quantization, quantize
    from detlit.structures import Batch, Detection, Preprocessing, Target


def __getattr__(name: str) -> Any:
    """Import a public name from its home (PEP 562)."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'detlit' has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
