import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser

from detlit.errors import ConfigurationError
from detlit.ops.boxes import decode_boxes
from detlit.postprocess import NMSPostPredictionCallback, PostPredictionCallback
from detlit.postprocess.ranking import rank_pairs
from detlit.spec import build, spec_of
from detlit.structures import Detection
from tests.fake_predictions import make_predictions
from tests.golden_recipe import post_inputs
from tests.reference.postprocess import select

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = json.loads((GOLDEN / "post.json").read_text())


def rows_of(detection: Detection) -> np.ndarray:
    columns = (detection["boxes"], detection["scores"][:, None], detection["labels"][:, None].float())
    return torch.cat(columns, dim=1).numpy()


@pytest.mark.parametrize("case", CASES)
def test_golden_detections(case: str) -> None:
    """Rows of SuperGradients 3.7.1, order included.

    For single labels it keeps ``score >= threshold``; detlit's one rule is ``score > threshold``. The input holds one
    score of exactly 0.25, the row maximum of an anchor point: its row is the only one that may be missing here.
    """
    options = CASES[case]
    boxes, scores = (torch.from_numpy(x) for x in post_inputs())
    with np.load(GOLDEN / "post.npz") as archive:
        for j, detection in enumerate(NMSPostPredictionCallback(**options).suppress(boxes, scores)):
            expected = archive[f"c{case}_img{j}"]
            on_threshold = expected[:, 4] == np.float32(options["score_threshold"])
            assert on_threshold.sum() == (case == "6" and j == 0)
            np.testing.assert_array_equal(rows_of(detection), expected[~on_threshold])


@pytest.mark.parametrize("multi_label_per_box", [True, False])
@pytest.mark.parametrize("class_agnostic_nms", [True, False])
@pytest.mark.parametrize("nms_top_k", [20, 1000])
def test_detections_equal_the_slow_twin(multi_label_per_box: bool, class_agnostic_nms: bool, nms_top_k: int) -> None:
    predictions = make_predictions(batch_size=2)
    options = {
        "score_threshold": 0.2,
        "nms_threshold": 0.4,
        "nms_top_k": nms_top_k,
        "max_predictions": 15,
        "multi_label_per_box": multi_label_per_box,
        "class_agnostic_nms": class_agnostic_nms,
    }
    boxes = decode_boxes(predictions.reg_logits, predictions.anchor_points, predictions.strides)
    scores = predictions.cls_logits.sigmoid()
    for i, detection in enumerate(NMSPostPredictionCallback(**options)(predictions)):
        expected = select(boxes[i].tolist(), scores[i].tolist(), **options)
        assert 0 < len(expected) <= 15
        anchors = [anchor for _, anchor, _ in expected]
        torch.testing.assert_close(detection["boxes"], boxes[i, anchors])
        torch.testing.assert_close(detection["scores"], torch.tensor([score for score, _, _ in expected]))
        assert detection["labels"].tolist() == [label for _, _, label in expected]


def test_lazy_decoding_equals_decoding_everything() -> None:
    predictions = make_predictions(96)
    boxes = decode_boxes(predictions.reg_logits, predictions.anchor_points, predictions.strides)
    callback = NMSPostPredictionCallback(nms_top_k=50)
    pairs = zip(callback(predictions), callback.suppress(boxes, predictions.cls_logits.sigmoid()), strict=True)
    for lazy, eager in pairs:
        np.testing.assert_allclose(rows_of(lazy), rows_of(eager), rtol=1e-6)


@pytest.mark.parametrize("levels", [3, 50, 10_000], ids=["many-ties", "some-ties", "few-ties"])
@pytest.mark.parametrize("k", [1, 7, 40, 500])
def test_two_stage_ranking_equals_a_stable_sort(levels: int, k: int) -> None:
    scores = torch.randint(levels, (60, 5), generator=torch.Generator().manual_seed(k)).float()
    values, flat = scores.flatten().sort(descending=True, stable=True)
    got_values, anchors, labels = rank_pairs(scores, k)
    assert torch.equal(got_values, values[:k])
    assert torch.equal(anchors * 5 + labels, flat[:k])


@pytest.mark.parametrize("multi_label_per_box", [True, False])
def test_a_score_on_the_threshold_is_dropped(multi_label_per_box: bool) -> None:
    boxes = torch.tensor([[[0.0, 0.0, 9.0, 9.0], [20.0, 0.0, 29.0, 9.0]]])
    scores = torch.tensor([[[0.25], [0.26]]])
    callback = NMSPostPredictionCallback(0.25, multi_label_per_box=multi_label_per_box)
    assert callback.suppress(boxes, scores)[0]["scores"].tolist() == [pytest.approx(0.26)]


def test_threshold_zero_keeps_every_score_above_zero() -> None:
    boxes = torch.tensor([[[0.0, 0.0, 9.0, 9.0], [20.0, 0.0, 29.0, 9.0]]])
    detection = NMSPostPredictionCallback(0.0).suppress(boxes, torch.tensor([[[1e-20], [0.0]]]))[0]
    assert detection["boxes"].tolist() == [[0, 0, 9, 9]]


def test_class_agnostic_suppression_crosses_classes() -> None:
    boxes = torch.tensor([[[0.0, 0.0, 9.0, 9.0], [0.0, 0.0, 9.0, 8.5]]])
    scores = torch.tensor([[[0.9, 0.0], [0.0, 0.8]]])
    assert NMSPostPredictionCallback().suppress(boxes, scores)[0]["labels"].tolist() == [0, 1]
    agnostic = NMSPostPredictionCallback(class_agnostic_nms=True)
    assert agnostic.suppress(boxes, scores)[0]["labels"].tolist() == [0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_give_float32_detections(dtype: torch.dtype) -> None:
    half = make_predictions()
    half = half._replace(cls_logits=half.cls_logits.to(dtype), reg_logits=half.reg_logits.to(dtype))
    full = half._replace(cls_logits=half.cls_logits.float(), reg_logits=half.reg_logits.float())
    callback = NMSPostPredictionCallback()
    for ours, theirs in zip(callback(half), callback(full), strict=True):
        assert ours["boxes"].dtype == ours["scores"].dtype == torch.float32
        np.testing.assert_array_equal(rows_of(ours), rows_of(theirs))


def test_nothing_above_the_threshold_is_an_empty_detection() -> None:
    detection = NMSPostPredictionCallback(score_threshold=1.0)(make_predictions(batch_size=1))[0]
    assert detection["boxes"].shape == (0, 4)
    assert detection["scores"].shape == detection["labels"].shape == (0,)
    assert detection["labels"].dtype == torch.int64


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"score_threshold": 25}, "score_threshold=25 is no threshold: choose a number between 0 and 1"),
        ({"nms_threshold": -0.1}, "nms_threshold=-0.1 is no threshold"),
        ({"nms_top_k": 0}, "nms_top_k=0 leaves no detections: choose at least 1"),
        ({"max_predictions": -1}, "max_predictions=-1 leaves no detections"),
    ],
)
def test_impossible_arguments_are_refused(option: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        NMSPostPredictionCallback(**option)


def test_callback_parses_from_a_config_and_is_rebuilt_from_its_spec() -> None:
    parser = ArgumentParser()
    parser.add_argument("--callback", type=PostPredictionCallback)
    config = parser.parse_args(["--callback=NMSPostPredictionCallback", "--callback.score_threshold=0.3"])
    callback = build(spec_of(parser.instantiate(config).callback))
    assert isinstance(callback, NMSPostPredictionCallback)
    assert callback.score_threshold == 0.3
    assert callback.nms_threshold == 0.7
