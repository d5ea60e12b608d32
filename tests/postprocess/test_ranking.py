import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detlit.postprocess.ranking import best_of, rank_anchors, rank_pairs


@pytest.mark.parametrize("levels", [1, 3, 50, 10_000], ids=["all-ties", "many-ties", "some-ties", "few-ties"])
@pytest.mark.parametrize("k", [1, 7, 40, 500])
def test_two_stage_ranking_equals_a_stable_sort(levels: int, k: int) -> None:
    scores = torch.randint(levels, (60, 5), generator=torch.Generator().manual_seed(k)).float()
    values, flat = scores.flatten().sort(descending=True, stable=True)
    got_values, anchors, labels = rank_pairs(scores, k)
    assert torch.equal(got_values, values[:k])
    assert torch.equal(anchors * 5 + labels, flat[:k])


@given(
    values=st.lists(st.sampled_from([-float("inf"), -1.5, 0.0, 2.0, float("inf")]), max_size=30),
    k=st.integers(1, 32),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
)
def test_best_of_takes_the_first_of_equal_values(values: list[float], k: int, dtype: torch.dtype) -> None:
    expected = sorted(sorted(range(len(values)), key=lambda i: (-values[i], i))[:k])
    assert best_of(torch.tensor(values, dtype=dtype), k).tolist() == expected


@given(
    rows=st.lists(st.lists(st.integers(-2, 2), min_size=3, max_size=3), min_size=1, max_size=20), k=st.integers(1, 25)
)
def test_anchor_points_rank_by_their_first_best_label(rows: list[list[int]], k: int) -> None:
    expected = sorted(((max(row), a, row.index(max(row))) for a, row in enumerate(rows)), key=lambda x: (-x[0], x[1]))
    values, anchors, labels = rank_anchors(torch.tensor(rows, dtype=torch.float16), k)
    assert list(zip(values.tolist(), anchors.tolist(), labels.tolist(), strict=True)) == expected[:k]


def test_what_is_not_a_number_never_ranks_before_what_is() -> None:
    scores = torch.tensor([[0.1, torch.nan], [0.3, 0.2], [0.0, 0.4]])
    assert [column.tolist() for column in rank_pairs(scores, 2)[1:]] == [[2, 1], [1, 0]]
    assert rank_anchors(scores, 2)[1].tolist() == [2, 1]
