import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jsonargparse import ArgumentParser

from detlit.errors import ConfigurationError
from detlit.postprocess import MatrixNMS, NMSPostPredictionCallback, PostPredictionCallback
from detlit.spec import build, spec_of
from tests.fake_predictions import make_predictions
from tests.reference.postprocess import matrix_decay

BOX = [0.0, 0.0, 10.0, 10.0]
HALF = [0.0, 0.0, 10.0, 5.0]
QUARTER = [0.0, 0.0, 5.0, 5.0]


def detect(boxes: list[list[float]], scores: list[list[float]], **options: Any) -> list[float]:
    detection = MatrixNMS(**options).suppress(torch.tensor([boxes]), torch.tensor([scores]))[0]
    return [round(score, 5) for score in detection["scores"].tolist()]


def test_overlap_lowers_a_score_by_the_kernel() -> None:
    scores = [[0.9], [0.8]]
    assert detect([BOX, HALF], scores) == [0.9, round(0.8 * math.exp(-3 * 0.25), 5)]
    assert detect([BOX, HALF], scores, sigma=2.0) == [0.9, round(0.8 * math.exp(-2 * 0.25), 5)]
    assert detect([BOX, HALF], scores, kernel="linear") == [0.9, 0.4]
    assert detect([BOX, HALF], scores, kernel="linear", score_threshold=0.4) == [0.9]


def test_a_suspected_box_lowers_others_less() -> None:
    """Quarter overlaps half by 0.5, which overlaps box by 0.5 itself: 0.5 / 0.5 = 1; box alone counts, by 0.25."""
    assert detect([BOX, HALF, QUARTER], [[0.9], [0.8], [0.6]], kernel="linear") == [0.9, 0.45, 0.4]


def test_copies_vanish_and_hide_nothing_else() -> None:
    assert detect([BOX, BOX, BOX], [[0.9], [0.8], [0.7]], kernel="linear") == [0.9]
    assert detect([BOX, BOX, HALF], [[0.9], [0.8], [0.7]], kernel="linear") == [0.9, 0.35]


def test_boxes_without_area_overlap_nothing() -> None:
    assert detect([[3.0, 3.0, 3.0, 3.0]] * 2, [[0.9], [0.8]]) == [0.9, 0.8]


def test_classes_compete_only_if_asked_to() -> None:
    boxes, scores = [BOX, HALF], [[0.9, 0.0], [0.0, 0.8]]
    assert detect(boxes, scores, kernel="linear") == [0.9, 0.8]
    assert detect(boxes, scores, kernel="linear", class_agnostic_nms=True) == [0.9, 0.4]


def test_counts_labels_per_box_and_clipping() -> None:
    boxes, scores = [[-5.0, 0.0, 10.0, 10.0], [30.0, 30.0, 40.0, 45.0]], [[0.9, 0.8], [0.7, 0.6]]
    assert detect(boxes, scores) == [0.9, 0.8, 0.7, 0.6]
    assert detect(boxes, scores, multi_label_per_box=False) == [0.9, 0.7]
    assert detect(boxes, scores, max_predictions=3) == [0.9, 0.8, 0.7]
    assert detect(boxes, scores, nms_top_k=2) == [0.9, 0.8]
    clipped = MatrixNMS(clip=True).suppress(torch.tensor([boxes]), torch.tensor([scores]), image_size=(32, 32))[0]
    assert clipped["boxes"][[0, 2]].tolist() == [[0, 0, 10, 10], [30, 30, 32, 32]]


@given(data=st.data(), kernel=st.sampled_from(["gaussian", "linear"]), sigma=st.sampled_from([0.5, 3.0]))
def test_scores_equal_the_slow_twin(data: st.DataObject, kernel: Any, sigma: float) -> None:
    corner = st.tuples(*[st.integers(-4, 4)] * 2, *[st.integers(5, 9)] * 2)
    boxes = data.draw(st.lists(corner, max_size=12))
    groups = data.draw(st.lists(st.integers(0, 2), min_size=len(boxes), max_size=len(boxes)))
    level = st.sampled_from([0.25, 0.5, 1.0])
    scores = sorted(data.draw(st.lists(level, min_size=len(boxes), max_size=len(boxes))), reverse=True)
    callback = MatrixNMS(score_threshold=0.1, kernel=kernel, sigma=sigma)
    kept, lowered = callback.choose(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), torch.tensor(scores), torch.tensor(groups)
    )
    decay = matrix_decay(boxes, groups, kernel, sigma)
    expected = [score * factor for score, factor in zip(scores, decay, strict=True)]
    assert lowered.tolist() == pytest.approx([expected[i] for i in kept.tolist()], abs=1e-5)
    assert lowered.tolist() == sorted(lowered.tolist(), reverse=True)
    assert {i for i, score in enumerate(expected) if score > 0.1 + 1e-5} <= set(kept.tolist())
    assert set(kept.tolist()) <= {i for i, score in enumerate(expected) if score > 0.1 - 1e-5}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_precision_gives_the_candidates_of_greedy_suppression_where_overlap_costs_nothing(
    dtype: torch.dtype,
) -> None:
    predictions = make_predictions()
    predictions = predictions._replace(
        cls_logits=predictions.cls_logits.to(dtype), reg_logits=predictions.reg_logits.to(dtype)
    )
    greedy = NMSPostPredictionCallback(nms_threshold=1.0, nms_top_k=500)(predictions)
    faint = MatrixNMS(sigma=1e-9)(predictions)
    for ours, theirs in zip(faint, greedy, strict=True):
        assert ours["boxes"].dtype == ours["scores"].dtype == torch.float32
        torch.testing.assert_close(ours["boxes"], theirs["boxes"])
        torch.testing.assert_close(ours["scores"], theirs["scores"])
        assert len(ours["scores"]) > 50


def test_nothing_above_the_threshold_is_an_empty_detection() -> None:
    detection = MatrixNMS(score_threshold=1.0)(make_predictions(batch_size=1))[0]
    assert detection["boxes"].shape == (0, 4)
    assert detection["scores"].shape == detection["labels"].shape == (0,)
    assert detection["labels"].dtype == torch.int64


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"score_threshold": 25}, "score_threshold=25 is no threshold: choose a number between 0 and 1"),
        ({"nms_top_k": 0}, "nms_top_k=0 leaves no detections: choose at least 1"),
        ({"kernel": "cubic"}, "kernel='cubic' is unknown: choose gaussian or linear"),
        ({"sigma": 0.0}, "sigma=0.0 would not lower the score of an overlap: choose more than 0"),
    ],
)
def test_impossible_arguments_are_refused(option: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        MatrixNMS(**option)


def test_callback_parses_from_a_config_and_is_rebuilt_from_its_spec() -> None:
    parser = ArgumentParser()
    parser.add_argument("--callback", type=PostPredictionCallback)
    config = parser.parse_args(["--callback=MatrixNMS", "--callback.kernel=linear"])
    callback = build(spec_of(parser.instantiate(config).callback))
    assert isinstance(callback, MatrixNMS)
    assert callback.kernel == "linear"
    assert callback.nms_top_k == 500
