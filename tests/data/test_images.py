"""Reading image files."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from detlit.data import read_image
from detlit.data.images import write_image
from detlit.errors import ImageReadError

RED, GREEN = (255, 0, 0), (0, 255, 0)


def save(path: Path, array: np.ndarray) -> Path:
    cv2.imwrite(str(path), array)
    return path


def test_channels_are_rgb(tmp_path: Path) -> None:
    image = np.zeros((4, 6, 3), dtype=np.uint8)
    image[:, :3], image[:, 3:] = RED, GREEN
    Image.fromarray(image).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), image)


def test_grey_alpha_and_16_bit_become_8_bit_rgb(tmp_path: Path) -> None:
    grey = np.arange(24, dtype=np.uint8).reshape(4, 6)
    np.testing.assert_array_equal(read_image(save(tmp_path / "grey.png", grey)), np.stack([grey] * 3, axis=2))
    rgba = np.dstack([grey, grey, grey, grey])
    np.testing.assert_array_equal(read_image(save(tmp_path / "rgba.png", rgba)), np.stack([grey] * 3, axis=2))
    deep = grey.astype(np.uint16) * 256 + 255
    np.testing.assert_array_equal(read_image(save(tmp_path / "deep.png", deep)), np.stack([grey] * 3, axis=2))


def rotated_photo(path: Path) -> Path:
    """A 6x4 file, half red and half green, whose EXIF says to turn it by a quarter."""
    image = np.zeros((32, 48, 3), dtype=np.uint8)
    image[:, :24], image[:, 24:] = RED, GREEN
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(image).save(path, exif=exif, quality=95)
    return path


def test_exif_rotation_is_applied_as_viewers_do(tmp_path: Path) -> None:
    path = rotated_photo(tmp_path / "photo.jpg")
    for image in (read_image(path), read_image(path, size=(48, 32))):
        assert image.shape == (48, 32, 3)
        assert image[4, 16, 0] > 200
        assert image[44, 16, 1] > 200


def test_exif_rotation_is_left_out_where_the_annotations_did(tmp_path: Path) -> None:
    image = read_image(rotated_photo(tmp_path / "photo.jpg"), size=(32, 48))
    assert image.shape == (32, 48, 3)
    assert image[16, 4, 0] > 200
    assert image[16, 44, 1] > 200


def test_another_size_than_annotated_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.zeros((4, 6, 3), dtype=np.uint8))
    with pytest.raises(ImageReadError, match=r"a\.png has 6x4 pixels, but its annotations say 8x4"):
        read_image(path, size=(4, 8))


@pytest.mark.parametrize("content", [b"", b"not an image", b"\xff\xd8\xff\xe0broken"], ids=["empty", "text", "broken"])
def test_a_file_that_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.jpg").write_bytes(content)
    with pytest.raises(ImageReadError, match=r"bad\.jpg cannot be decoded"):
        read_image(tmp_path / "bad.jpg")


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ImageReadError, match=r"there is no image .*none\.png"):
        read_image(tmp_path / "none.png")
    with pytest.raises(ImageReadError, match="cannot be opened"):
        read_image(tmp_path)


def test_a_written_image_reads_the_same(tmp_path: Path) -> None:
    image = np.arange(72, dtype=np.uint8).reshape(4, 6, 3)
    write_image(tmp_path / "a.png", image)
    write_image(tmp_path / "b", image)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), image)
    np.testing.assert_array_equal(read_image(tmp_path / "b.png"), image)


def test_an_image_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"image .*gone/a\.png cannot be written: check"):
        write_image(tmp_path / "gone" / "a.png", np.zeros((4, 6, 3), dtype=np.uint8))
