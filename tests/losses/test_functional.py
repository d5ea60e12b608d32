import math

import pytest
import torch
import torch.nn.functional as F

from detlit.losses.functional import distribution_focal_loss, focal_loss, varifocal_loss
from tests.reference import loss as reference

LOGITS = [-12.0, -2.0, 0.0, 0.7, 12.0]


def test_varifocal_loss_equals_the_slow_twin() -> None:
    logits = torch.tensor(LOGITS, dtype=torch.float64)
    own = torch.tensor([reference.varifocal(x, 0.3, True) for x in LOGITS], dtype=torch.float64)
    torch.testing.assert_close(varifocal_loss(logits, torch.full_like(logits, 0.3)), own, rtol=1e-9, atol=0)


@pytest.mark.parametrize("alpha", [None, 0.25])
def test_focal_loss_equals_the_slow_twin(alpha: float | None) -> None:
    logits = torch.tensor(LOGITS, dtype=torch.float64)
    for score in (0.0, 0.3, 1.0):
        expected = torch.tensor([reference.focal(x, score, alpha) for x in LOGITS], dtype=torch.float64)
        loss = focal_loss(logits, torch.full_like(logits, score), alpha=alpha)
        torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)


def test_distribution_focal_loss_of_a_whole_distance_is_cross_entropy() -> None:
    logits = torch.randn(6, 17, dtype=torch.float64)
    target = torch.tensor([0.0, 1.0, 5.0, 9.0, 14.0, 15.0], dtype=torch.float64)
    expected = F.cross_entropy(logits, target.long(), reduction="none")
    torch.testing.assert_close(distribution_focal_loss(logits.log_softmax(-1), target), expected)


def test_distribution_focal_loss_is_least_where_the_bins_hold_the_fractions() -> None:
    """The minimum over two bins of a distance of 2.25 is the entropy of (0.75, 0.25)."""
    logits = torch.full((5,), -1e4, dtype=torch.float64)
    logits[2], logits[3] = math.log(0.75), math.log(0.25)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert distribution_focal_loss(logits.log_softmax(-1), torch.tensor(2.25)).item() == pytest.approx(entropy)
