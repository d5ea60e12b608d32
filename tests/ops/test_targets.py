import numpy as np
import pytest
import torch

from detlit.errors import AnnotationError, ConfigurationError
from detlit.ops.targets import collect_ground_truth
from detlit.structures import Target
from tests.fake_predictions import make_batch, make_targets


def test_a_list_of_targets_and_a_batch_give_the_same_ground_truth() -> None:
    targets = make_targets([2, 0, 3])
    for like in (torch.zeros(3, 1), torch.zeros(3, 1, dtype=torch.float64)):
        from_list, from_batch = (collect_ground_truth(x, 3, like) for x in (targets, make_batch(targets)))
        assert from_list.counts == from_batch.counts == [2, 0, 3]
        for ours, theirs in zip(from_list[:3], from_batch[:3], strict=True):
            torch.testing.assert_close(ours, theirs)
        for ours, theirs in zip(from_list[4:], from_batch[4:], strict=True):
            np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(from_list.host_boxes, from_list.boxes.double())
        assert from_list.boxes.dtype == like.dtype


def test_boxes_are_at_least_float32_and_the_host_sees_the_same_values() -> None:
    target = Target(boxes=torch.tensor([[0.1, 0.2, 1 / 3, 9.0]], dtype=torch.float64), labels=torch.zeros(1))
    for dtype in (torch.bfloat16, torch.float32):
        truth = collect_ground_truth([target], 1, torch.zeros(1, 1, dtype=dtype))
        assert truth.boxes.dtype == torch.float32
        assert truth.host_boxes.tolist() == truth.boxes.double().tolist() != target["boxes"].tolist()


def test_images_are_split_by_count() -> None:
    targets = make_targets([2, 0, 1])
    images = collect_ground_truth(targets, 3, torch.zeros(3, 1)).images()
    for (boxes, labels, iscrowd), target in zip(images, targets, strict=True):
        torch.testing.assert_close(boxes, target["boxes"])
        torch.testing.assert_close(labels, target["labels"])
        assert not iscrowd.any()


@pytest.mark.parametrize("label", [-1, 3])
def test_label_out_of_range_names_the_image(label: int) -> None:
    targets = make_targets([2, 1])
    targets[1] |= {"labels": torch.tensor([label]), "image_id": 77}
    message = rf"^image 77 has an object with label {label}, outside 0\.\.2: number the classes contiguously"
    for batch in (targets, make_batch(targets)):
        with pytest.raises(AnnotationError, match=message):
            collect_ground_truth(batch, 3, torch.zeros(2, 1))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_box_that_is_not_finite_names_the_image(value: float) -> None:
    targets = make_targets([2, 1])
    targets[0]["boxes"][1, 2] = value
    for batch in (targets, make_batch(targets)):
        with pytest.raises(
            AnnotationError, match=r"^image 0 has the box \[.*(nan|inf).*\], which is not finite: correct"
        ):
            collect_ground_truth(batch, 3, torch.zeros(2, 1))


def test_number_of_targets_must_be_that_of_the_images() -> None:
    with pytest.raises(ConfigurationError, match="2 targets came with predictions for 3 images"):
        collect_ground_truth(make_targets([1, 1]), 3, torch.zeros(3, 1))


def test_each_box_needs_a_label() -> None:
    target = Target(boxes=torch.zeros(2, 4), labels=torch.zeros(1), image_id=5)
    with pytest.raises(AnnotationError, match="image 5 has 2 boxes and 1 labels"):
        collect_ground_truth([target], 3, torch.zeros(1, 1))


def test_empty_tensor_of_any_shape_is_an_image_without_objects() -> None:
    target = Target(boxes=torch.zeros(0), labels=torch.zeros(0))
    assert collect_ground_truth([target], 3, torch.zeros(1, 1)).counts == [0]
