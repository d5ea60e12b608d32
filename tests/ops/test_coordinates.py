"""From network pixels back to the image file."""

import torch

from detlit.ops.coordinates import to_original_pixels
from detlit.structures import Detection, Preprocessing


def test_boxes_come_back_to_where_the_letterbox_took_them_from() -> None:
    height, width = 427, 640
    scale_x, scale_y, left, top = geometry = Preprocessing(size=(320, 256)).geometry(height, width)
    original = torch.tensor([[0.0, 0.0, 640.0, 427.0], [10.5, 20.25, 300.0, 400.0]], dtype=torch.float64)
    network = original * torch.tensor([scale_x, scale_y] * 2) + torch.tensor([left, top] * 2)
    found = Detection(boxes=network.float(), scores=torch.ones(2), labels=torch.zeros(2, dtype=torch.int64))
    (mapped,) = to_original_pixels([found], torch.tensor([geometry], dtype=torch.float64), [(height, width)])
    torch.testing.assert_close(mapped["boxes"].double(), original, atol=1e-4, rtol=0)


def test_boxes_are_clipped_to_the_image() -> None:
    found = Detection(
        boxes=torch.tensor([[-50.0, 5.0, 900.0, 30.0]]), scores=torch.ones(1), labels=torch.zeros(1, dtype=torch.int64)
    )
    geometry = torch.tensor([[1.0, 1.0, 0.0, 0.0]], dtype=torch.float64)
    (mapped,) = to_original_pixels([found], geometry, [(20, 60)])
    assert mapped["boxes"].tolist() == [[0.0, 5.0, 60.0, 20.0]]
