"""Reading image files."""

import itertools
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from detlit.data import read_image
from detlit.data.images import encoded_size, image_size, to_rgb8, write_image
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


def test_grey_and_alpha_become_rgb(tmp_path: Path) -> None:
    grey = np.arange(24, dtype=np.uint8).reshape(4, 6)
    np.testing.assert_array_equal(read_image(save(tmp_path / "grey.png", grey)), np.stack([grey] * 3, axis=2))
    rgba = np.dstack([grey, grey, grey, grey])
    np.testing.assert_array_equal(read_image(save(tmp_path / "rgba.png", rgba)), np.stack([grey] * 3, axis=2))


@pytest.mark.parametrize(
    ("largest", "shift"),
    [(200, 0), (255, 0), (256, 2), (1023, 2), (1024, 4), (4095, 4), (4096, 6), (16384, 8), (65535, 8)],
)
def test_16_bit_images_keep_the_8_highest_bits_that_they_use(tmp_path: Path, largest: int, shift: int) -> None:
    deep = np.linspace(0, largest, 24).astype(np.uint16).reshape(4, 6)
    expected = np.stack([(deep >> shift).astype(np.uint8)] * 3, axis=2)
    for suffix in ("png", "tiff"):
        np.testing.assert_array_equal(read_image(save(tmp_path / f"deep.{suffix}", deep)), expected)
    np.testing.assert_array_equal(to_rgb8(deep, "x"), expected)
    colour = np.stack([deep, deep // 2, deep // 3], axis=2)
    np.testing.assert_array_equal(read_image(save(tmp_path / "colour.png", colour[..., ::-1])), colour >> shift)


def test_floating_point_images_must_be_within_0_and_1(tmp_path: Path) -> None:
    image = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    expected = np.stack([np.rint(255 * image).astype(np.uint8)] * 3, axis=2)
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.tiff", image)), expected)
    with pytest.raises(ImageReadError, match=r"a\.tiff holds float32 values from 0\.0 to 2\.0: convert it to 8 or 16"):
        read_image(save(tmp_path / "a.tiff", 2 * image))
    with pytest.raises(ImageReadError, match=r"x holds float32 values from nan"):
        to_rgb8(image * np.float32("nan"), "x")


def test_arrays_become_rgb() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    rgba = np.dstack([grey, grey + 1, grey + 2, grey])
    np.testing.assert_array_equal(to_rgb8(grey, "x"), np.stack([grey] * 3, axis=2))
    np.testing.assert_array_equal(to_rgb8(grey[..., None], "x"), np.stack([grey] * 3, axis=2))
    np.testing.assert_array_equal(to_rgb8(rgba, "x"), rgba[..., :3])
    for wrong in (np.zeros(3), np.zeros((2, 2, 2)), np.zeros((0, 4, 3))):
        with pytest.raises(ImageReadError, match=r"image x is an array \("):
            to_rgb8(wrong, "x")


def saved_by_pillow(path: Path, mode: str, orientation: int | None, height: int, width: int, **options: Any) -> Path:
    pixels = np.random.default_rng(height).integers(0, 255, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).convert(mode)
    if orientation is not None and path.suffix == ".tiff":
        options["tiffinfo"] = {0x0112: orientation}
    elif orientation is not None:
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = orientation
    image.save(path, **options)
    return path


_NO_GIF = tuple(map(int, cv2.__version__.split(".")[:2])) < (4, 11)


@pytest.mark.parametrize(
    ("suffix", "modes"),
    [
        ("jpg", ["RGB", "L", "CMYK"]),
        ("png", ["RGB", "L", "RGBA", "P", "1"]),
        ("bmp", ["RGB", "L", "P", "1"]),
        ("webp", ["RGB", "L", "RGBA"]),
        ("tiff", ["RGB", "L", "RGBA", "P", "1", "CMYK"]),
        pytest.param(
            "gif", ["RGB", "L"], marks=pytest.mark.skipif(_NO_GIF, reason="OpenCV 4.11 is the first with GIF")
        ),
    ],
)
def test_the_size_in_the_header_is_that_of_the_image_read(
    tmp_path: Path, suffix: str, modes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for mode, orientation in itertools.product(modes, (None, 1, 3, 5, 6, 8)):
        for options in ({}, {"lossless": True}, {"progressive": True}):
            path = tmp_path / f"a.{suffix}"
            saved_by_pillow(path, mode, orientation, 7 + len(options) + (orientation or 0), 23, **options)
            expected = read_image(path).shape[:2]
            assert image_size(path) == encoded_size(path.read_bytes(), "x") == expected
            if suffix == "jpg" or (orientation is None and suffix != "gif"):
                with monkeypatch.context() as patch:
                    patch.setattr("detlit.data.images.decode_image", lambda *_: pytest.fail("decoded"))
                    assert image_size(path) == expected


def test_exif_at_the_end_of_a_png_counts_too(tmp_path: Path) -> None:
    content = saved_by_pillow(tmp_path / "a.png", "RGB", 6, 3, 5).read_bytes()
    start = content.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(content[start : start + 4], "big")
    last = content.index(b"IEND") - 4
    (tmp_path / "a.png").write_bytes(content[:start] + content[end:last] + content[start:end] + content[last:])
    assert image_size(tmp_path / "a.png") == read_image(tmp_path / "a.png").shape[:2] == (5, 3)


def test_the_size_that_annotations_say_decides_about_exif(tmp_path: Path) -> None:
    path = rotated_photo(tmp_path / "photo.jpg")
    assert image_size(path) == image_size(path, (48, 32)) == (48, 32)
    assert image_size(path, (32, 48)) == (32, 48)
    with pytest.raises(ImageReadError, match="has 32x48 pixels, but its annotations say 33x48"):
        image_size(path, (48, 33))


def test_the_size_of_a_file_that_is_no_image(tmp_path: Path) -> None:
    for content in (b"", b"text", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"BM", b"RIFF1234WEBP", b"II*\0\xff\xff"):
        (tmp_path / "bad.jpg").write_bytes(content)
        with pytest.raises(ImageReadError, match=r"bad\.jpg cannot be decoded"):
            image_size(tmp_path / "bad.jpg")
    with pytest.raises(ImageReadError, match=r"there is no image .*none\.png"):
        image_size(tmp_path / "none.png")
    with pytest.raises(ImageReadError, match="cannot be opened"):
        image_size(tmp_path)


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
