"""The post-prediction callback of a checkpoint."""

from typing import Any

import pytest

from detlit.errors import ConfigurationError
from detlit.postprocess import MatrixNMS, NMSPostPredictionCallback
from detlit.postprocess.stored import stored_callback
from detlit.spec import spec_of


def test_a_callback_comes_back_as_it_was_stored_but_for_what_is_changed() -> None:
    entry = {"module": {"post_prediction_callback": spec_of(NMSPostPredictionCallback(nms_threshold=0.6))}}
    same, changed = stored_callback(entry), stored_callback(entry, score_threshold=0.4, nms_threshold=None)
    assert isinstance(same, NMSPostPredictionCallback)
    assert spec_of(same) == entry["module"]["post_prediction_callback"]
    assert isinstance(changed, NMSPostPredictionCallback)
    assert (changed.score_threshold, changed.nms_threshold) == (0.4, 0.6)


@pytest.mark.parametrize("entry", [{}, {"module": {}}, {"module": {"post_prediction_callback": None}}])
def test_without_one_it_is_nms(entry: dict[str, Any]) -> None:
    callback = stored_callback(entry, max_predictions=7)
    assert isinstance(callback, NMSPostPredictionCallback)
    assert callback.max_predictions == 7


def test_an_argument_the_callback_does_not_have_is_refused() -> None:
    entry = {"module": {"post_prediction_callback": spec_of(MatrixNMS())}}
    with pytest.raises(ConfigurationError, match=r"nms_threshold=0.5 means nothing to .*MatrixNMS"):
        stored_callback(entry, nms_threshold=0.5)
