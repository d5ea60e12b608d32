"""``detlit convert``: a self-contained checkpoint from weights of SuperGradients, without Lightning."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from detlit.cli.configs import find_config
from detlit.cli.messages import FriendlyErrors
from detlit.errors import CheckpointError, ConfigurationError
from detlit.models import Detector, presets
from detlit.models.checkpoint_entry import make_entry
from detlit.models.checkpoints import read_weights
from detlit.models.class_names import placeholder_names
from detlit.models.recognition import recognize_preset
from detlit.models.torch_files import write_torch_file
from detlit.models.transfer import transfer
from detlit.models.weights import Weights
from detlit.postprocess import NMSPostPredictionCallback
from detlit.spec import plain, spec_of
from detlit.structures import Preprocessing

__all__ = ["convert", "main"]


def main(argv: Sequence[str]) -> None:
    """Run ``detlit convert``.

    Args:
        argv: the command and its options.
    """
    parser = FriendlyErrors(
        prog="detlit convert",
        allow_abbrev=False,
        description="Make a checkpoint of detlit from a checkpoint or published weights of SuperGradients.",
    )
    parser.add_function_arguments(convert, as_positional=True)
    arguments = parser.instantiate(parser.parse_args(list(argv[1:])))
    convert(**arguments.as_dict())


def convert(
    source: str,
    output: str,
    model: str | None = None,
    class_names: list[str] | None = None,
    preprocessing: Preprocessing | None = None,
) -> None:
    """Make a checkpoint of detlit from weights of SuperGradients.

    Args:
        source: Checkpoint (ckpt_best.pth, average_model.pth, ...), published weights, or a bare state dict.
        output: Checkpoint to write, with which predict, validate, test and load_from_checkpoint need nothing else.
        model: Preset, such as yolo_nas_s, or YAML file of a detector; by default recognized by the weights' shapes.
        class_names: Names of the classes, in order; by default those in the source.
        preprocessing: How images become input; by default as the source says.
    """
    if Path(output).exists():
        raise ConfigurationError(f"there is a file {output} already: choose another name.")
    weights = read_weights(source)
    model = model or recognize_preset(weights, source)
    detector = _detector(model, weights, source)
    print(transfer(detector, weights, source, mode="strict"))
    for note in weights.notes:
        print(f"  {note}")
    names = _class_names(class_names, weights, detector.num_classes)
    detector.set_preprocessing(_preprocessing(preprocessing, weights, source))
    write_torch_file(_checkpoint(detector, weights, names), output)
    print(f"written to {output}: {model}, {len(names)} classes ({', '.join(names[:5])}{', ...' * (len(names) > 5)})")


def _detector(model: str, weights: Weights, source: str) -> Detector:
    """Build a preset, or the detector a YAML file describes, for the classes of the weights."""
    if weights.num_classes is None:
        raise CheckpointError(f"{source} has no layers for classes: convert the weights of a whole detector.")
    if model in presets.__all__:
        preset: Detector = getattr(presets, model)(weights.num_classes)
        return preset
    parser = FriendlyErrors(prog="detlit convert")
    parser.add_argument("--model", type=Detector, sub_configs=True)
    config = parser.parse_args([f"--model={find_config(model)}", f"--model.num_classes={weights.num_classes}"])
    detector: Detector = parser.instantiate(config).model
    return detector


def _class_names(given: list[str] | None, weights: Weights, num_classes: int) -> list[str]:
    names = given or list(weights.class_names or placeholder_names(num_classes))
    if len(names) != num_classes:
        raise ConfigurationError(
            f"{len(names)} class names for weights of {num_classes} classes: give --class_names one name per class."
        )
    return names


def _preprocessing(given: Preprocessing | None, weights: Weights, source: str) -> Preprocessing:
    found = given or weights.preprocessing
    if found is None:
        raise CheckpointError(
            f"how images become input of {source} is not known: say it with --preprocessing.size and its other options."
        )
    return found


def _checkpoint(detector: Detector, weights: Weights, class_names: list[str]) -> dict[str, object]:
    """Return a checkpoint of a ``DetectionModule`` around the detector, as Lightning lays it out."""
    nms_threshold = 0.7 if weights.nms_threshold is None else weights.nms_threshold
    module = {
        "detector": spec_of(detector),
        # Low for evaluation, like the default; 1024 candidates are what SuperGradients' predict() suppresses.
        "post_prediction_callback": spec_of(NMSPostPredictionCallback(nms_threshold=nms_threshold, nms_top_k=1024)),
        "class_names": class_names,
        "preprocessing": plain(detector.preprocessing),
    }
    return {
        "state_dict": {f"detector.{name}": value for name, value in detector.state_dict().items()},
        "detlit": make_entry(module, None, detector.preprocessing, class_names, weights.score_threshold),
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": version("lightning"),  # Lightning migrates older checkpoints
    }
