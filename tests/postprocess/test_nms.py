import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jsonargparse import ArgumentParser
from torchvision.ops import batched_nms

from detlit.errors import ConfigurationError
from detlit.ops.boxes import decode_boxes
from detlit.postprocess import NMSPostPredictionCallback, PostPredictionCallback
from detlit.postprocess.nms import suppress_overlaps
from detlit.spec import build, spec_of
from detlit.structures import Detection
from tests.fake_predictions import make_predictions
from tests.golden_recipe import post_inputs
from tests.reference.postprocess import select

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = json.loads((GOLDEN / "post.json").read_text())

OPTIONS = st.fixed_dictionaries(
    {
        "score_threshold": st.sampled_from([0.0, 0.25, 1.0]),
        "nms_threshold": st.sampled_from([0.0, 0.5, 0.75, 1.0]),
        "nms_top_k": st.integers(1, 40),
        "max_predictions": st.integers(1, 40),
        "multi_label_per_box": st.booleans(),
        "class_agnostic_nms": st.booleans(),
    }
)


def rows_of(detection: Detection) -> np.ndarray:
    columns = (detection["boxes"], detection["scores"][:, None], detection["labels"][:, None].float())
    return torch.cat(columns, dim=1).numpy()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES)
def test_golden_detections(case: str, dtype: torch.dtype) -> None:
    """Rows of SuperGradients 3.7.1, order included.

    For single labels it keeps ``score >= threshold``; detlit's one rule is ``score > threshold``. The input holds one
    score of exactly 0.25, the row maximum of an anchor point: its row is the only one that may be missing here.
    """
    options = CASES[case]
    boxes, scores = (torch.from_numpy(x).to(dtype) for x in post_inputs())
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
    options: dict[str, Any] = {
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


@given(data=st.data(), options=OPTIONS)
def test_any_decoded_predictions_give_what_the_slow_twin_gives(data: st.DataObject, options: dict[str, Any]) -> None:
    """Few boxes and scores to draw from, so that ties, copies and IoUs on the threshold are common."""
    num_anchors, num_classes = data.draw(st.integers(0, 12)), data.draw(st.integers(1, 3))
    dtype = data.draw(st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]))
    row = st.lists(st.sampled_from([0.0, 0.125, 0.25, 0.5, 0.75, 1.0]), min_size=num_classes, max_size=num_classes)
    scores = data.draw(st.lists(row, min_size=num_anchors, max_size=num_anchors))
    corner = st.tuples(*[st.integers(-4, 4)] * 2, *[st.integers(5, 9)] * 2)
    boxes = data.draw(st.lists(corner, min_size=num_anchors, max_size=num_anchors))
    detection = NMSPostPredictionCallback(**options).suppress(
        torch.tensor(boxes, dtype=dtype).reshape(1, -1, 4),
        torch.tensor(scores, dtype=dtype).reshape(1, -1, num_classes),
    )[0]
    expected = select(boxes, scores, **options)
    assert detection["scores"].tolist() == [score for score, _, _ in expected]
    assert detection["boxes"].tolist() == [list(boxes[anchor]) for _, anchor, _ in expected]
    assert detection["labels"].tolist() == [label for _, _, label in expected]


def test_classes_are_kept_apart_where_float32_offsets_mix_them() -> None:
    """Moved by the largest coordinate plus one, the box of class 1, left of the image, covers that of class 0."""
    boxes = torch.tensor([[300.0, 300.0, 640.0, 640.0], [-341.0, -341.0, -1.0, -1.0]])
    labels = torch.tensor([0, 1])
    assert batched_nms(boxes, torch.tensor([0.9, 0.8]), labels, 0.7).tolist() == [0]
    assert suppress_overlaps(boxes, labels, 0.7).tolist() == [0, 1]


def test_small_boxes_of_the_last_class_are_measured_exactly() -> None:
    """At class 79 float32 offsets round these boxes of 1/64 pixel until one covers more of the other than it does."""
    boxes = torch.tensor(
        [[1.0, 1.0, 1.015625, 1.015625], [1.0, 1.0, 1.012, 1.015625], [4095.0, 4095.0, 4096.0, 4096.0]]
    )
    labels = torch.tensor([79, 79, 0])
    alone = batched_nms(boxes[:2], torch.tensor([0.9, 0.8]), torch.tensor([0, 0]), 0.7).tolist()
    assert alone == [0]  # IoU 0.77
    assert batched_nms(boxes, torch.tensor([0.9, 0.8, 0.7]), labels, 0.7).tolist() != [0, 2]
    assert suppress_overlaps(boxes, labels, 0.7).tolist() == [0, 2]


def test_overlaps_of_many_classes_equal_those_of_each_class_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.randint(-300, 900, (1000, 2), generator=generator)
    boxes = torch.cat((corners, corners + torch.randint(20, 400, (1000, 2), generator=generator)), dim=1).float()
    labels = torch.randint(5, (1000,), generator=generator)
    alone = []
    for label in range(5):
        indices = (labels == label).nonzero()[:, 0]
        alone += indices[suppress_overlaps(boxes[indices], torch.zeros_like(indices), 0.3)].tolist()
    assert suppress_overlaps(boxes, labels, 0.3).tolist() == sorted(alone)
    assert len(alone) < 700


def test_clipping_cuts_boxes_off_at_the_border_and_changes_no_choice() -> None:
    predictions = make_predictions()
    open_, clipped = NMSPostPredictionCallback()(predictions), NMSPostPredictionCallback(clip=True)(predictions)
    for ours, theirs in zip(clipped, open_, strict=True):
        assert theirs["boxes"].min() < 0
        assert theirs["boxes"].max() > 64
        assert torch.equal(ours["boxes"], theirs["boxes"].clamp(0, 64))
        assert torch.equal(ours["scores"], theirs["scores"])
    boxes, scores = torch.tensor([[[-3.0, -2.0, 70.0, 50.0]]]), torch.tensor([[[0.5]]])
    detection = NMSPostPredictionCallback(clip=True).suppress(boxes, scores, image_size=(32, 64))[0]
    assert detection["boxes"].tolist() == [[0, 0, 64, 32]]
    with pytest.raises(ConfigurationError, match=r"clip=True needs the size of the image: give image_size"):
        NMSPostPredictionCallback(clip=True).suppress(boxes, scores)


@pytest.mark.parametrize("multi_label_per_box", [True, False])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_gives_no_detection_and_hides_no_other(multi_label_per_box: bool, bad: float) -> None:
    predictions = make_predictions(batch_size=1)
    callback = NMSPostPredictionCallback(multi_label_per_box=multi_label_per_box, nms_threshold=1.0)
    before = callback(predictions)[0]
    predictions.cls_logits[0, 3] = torch.nan
    predictions.reg_logits[0, 5] = bad
    after = callback(predictions)[0]
    assert len(after["scores"]) == len(before["scores"]) - 2 * (3 if multi_label_per_box else 1)
    assert after["boxes"].isfinite().all()


def test_lazy_decoding_equals_decoding_everything() -> None:
    predictions = make_predictions(96)
    boxes = decode_boxes(predictions.reg_logits, predictions.anchor_points, predictions.strides)
    callback = NMSPostPredictionCallback(nms_top_k=50)
    pairs = zip(callback(predictions), callback.suppress(boxes, predictions.cls_logits.sigmoid()), strict=True)
    for lazy, eager in pairs:
        np.testing.assert_allclose(rows_of(lazy), rows_of(eager), rtol=1e-6)


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
