"""Every kind of source gives the images that are in it."""

import io
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from detlit.errors import ConfigurationError, DatasetError, ImageReadError
from detlit.prediction.sources import expand, read_frames
from tests.prediction.media import write_video

RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
GREY = np.ascontiguousarray(RGB[..., 0])


def images_of(source: Any, **options: Any) -> list[NDArray[np.uint8]]:
    return [frame.image for frame in read_frames(source, **options)]


def png(image: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with two images, another in a subfolder, and a text."""
    for name, image in {"b.png": RGB, "a.png": RGB[::-1], "sub/c.png": RGB[:, ::-1]}.items():
        path = tmp_path / "pictures" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(image))
    (tmp_path / "pictures" / "notes.txt").write_text("no picture")
    return tmp_path / "pictures"


@pytest.fixture
def server(folder: Path) -> Iterator[str]:
    """Serve the folder and yield its URL."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (RGB, RGB),
        (GREY, np.dstack([GREY] * 3)),
        (GREY[..., None], np.dstack([GREY] * 3)),
        (np.dstack([RGB, GREY]), RGB),
        (RGB.astype(np.uint16) * 256, RGB),
        (RGB.astype(np.float32) / 255, RGB),
        (torch.from_numpy(RGB).permute(2, 0, 1), RGB),
        (torch.from_numpy(RGB).permute(2, 0, 1).double() / 255, RGB),
        (torch.from_numpy(GREY), np.dstack([GREY] * 3)),
        (Image.fromarray(RGB), RGB),
        (Image.fromarray(np.dstack([RGB, GREY])), RGB),
        (Image.fromarray(GREY), np.dstack([GREY] * 3)),
        (Image.fromarray(GREY.astype(np.uint16) * 256), np.dstack([GREY] * 3)),
        (png(RGB), RGB),
        (bytearray(png(RGB)), RGB),
        (memoryview(png(GREY)), np.dstack([GREY] * 3)),
    ],
    ids=[
        "rgb",
        "grey",
        "one channel",
        "rgba",
        "16 bits",
        "float",
        "tensor",
        "float tensor",
        "grey tensor",
        "pil",
        "pil rgba",
        "pil grey",
        "pil 16 bits",
        "bytes",
        "bytearray",
        "memoryview",
    ],
)
def test_every_form_of_an_image(source: Any, expected: NDArray[np.uint8]) -> None:
    (image,) = images_of(source)
    np.testing.assert_array_equal(image, expected)
    assert image.dtype == np.uint8


def test_half_precision_tensors_are_images() -> None:
    tensor = torch.from_numpy(RGB).permute(2, 0, 1).bfloat16() / 255
    (image,) = images_of(tensor)
    assert np.abs(image.astype(int) - RGB).max() <= 1


def test_pil_palettes_and_binary_images() -> None:
    palette = Image.fromarray(RGB).quantize(16)
    np.testing.assert_array_equal(images_of(palette)[0], np.asarray(palette.convert("RGB")))
    assert set(np.unique(images_of(Image.fromarray(GREY > 99))[0])) == {0, 255}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_pil_images_and_files_alike(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    smooth = cv2.resize(RGB[:4, :6], (48, 32), interpolation=cv2.INTER_CUBIC)
    Image.fromarray(smooth).save(tmp_path / "turned.jpg", exif=exif, quality=100)
    with Image.open(tmp_path / "turned.jpg") as opened:
        (from_pil,) = images_of(opened)
    (from_file,) = images_of(tmp_path / "turned.jpg")
    assert from_pil.shape == ((48, 32, 3) if orientation > 4 else (32, 48, 3))
    assert np.abs(from_pil.astype(int) - from_file).max() < 12


def test_arrays_may_be_bgr_and_nothing_else_is() -> None:
    bgr = np.ascontiguousarray(RGB[..., ::-1])
    np.testing.assert_array_equal(images_of(bgr, channel_order="BGR")[0], RGB)
    np.testing.assert_array_equal(images_of(np.dstack([bgr, GREY]), channel_order="BGR")[0], RGB)
    np.testing.assert_array_equal(images_of(Image.fromarray(RGB), channel_order="BGR")[0], RGB)
    with pytest.raises(ConfigurationError, match="channel_order='GBR' is unknown: choose 'RGB' or 'BGR'"):
        images_of(RGB, channel_order="GBR")


def test_batches_and_iterables_are_taken_apart() -> None:
    batch = np.stack([RGB, RGB[::-1]])
    assert len(images_of(batch)) == len(images_of(torch.from_numpy(batch).permute(0, 3, 1, 2))) == 2
    mixed = images_of(iter([RGB, (png(RGB), Image.fromarray(RGB)), [batch]]))
    assert len(mixed) == 5
    for image in mixed[:4]:
        np.testing.assert_array_equal(image, RGB)


def test_files_folders_and_patterns(folder: Path) -> None:
    assert [frame.path for frame in read_frames(folder)] == [folder / "a.png", folder / "b.png"]
    assert [frame.path for frame in read_frames(str(folder), recursive=True)] == [
        folder / "a.png",
        folder / "b.png",
        folder / "sub" / "c.png",
    ]
    assert [frame.path for frame in read_frames(f"{folder}/*.png")] == [folder / "a.png", folder / "b.png"]
    assert len(images_of(f"{folder}/**/*.png")) == 3
    np.testing.assert_array_equal(images_of(folder / "b.png")[0], RGB)


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "a[1].png").write_bytes(png(RGB))
    assert len(images_of(str(tmp_path / "a[1].png"))) == 1


@pytest.mark.parametrize(
    ("source", "message"), [("nothing", "there is no file or folder nothing"), ("*.nope", "no file matches")]
)
def test_a_path_that_leads_nowhere(source: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        expand(source)


def test_images_are_downloaded_up_to_a_limit(server: str, folder: Path) -> None:
    (frame,) = read_frames(f"{server}/b.png?size=large")
    np.testing.assert_array_equal(frame.image, RGB)
    assert frame.path == Path("b.png")
    with pytest.raises(ImageReadError, match=r"b\.png has more than 99 bytes: allow more with max_download"):
        images_of(f"{server}/b.png", max_download=99)
    with pytest.raises(ImageReadError, match=r"gone\.png cannot be downloaded \(.*[Nn]ot [Ff]ound\): check the URL"):
        images_of(f"{server}/gone.png")
    with pytest.raises(ImageReadError, match=r"notes\.txt cannot be decoded"):
        images_of(f"{server}/notes.txt")


def test_broken_images_are_named_and_skipped_or_raised(folder: Path) -> None:
    (folder / "broken.png").write_bytes(b"broken")
    broken: list[ImageReadError] = []
    sources = [RGB, folder / "gone.png", b"no image", folder, np.zeros((2, 2, 9), np.uint8)]
    assert len(images_of(sources, on_broken=broken.append)) == 3
    messages = [str(error) for error in broken]
    for message, name in zip(messages, ["gone.png", "in bytes", "broken.png", "(2, 2, 9)"], strict=True):
        assert name in message
    with pytest.raises(ImageReadError, match=r"gone\.png"):
        images_of(sources)


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_videos_give_their_frames(tmp_path: Path, suffix: str) -> None:
    path = write_video(tmp_path / f"film{suffix}", 12, fps=20)
    frames = list(read_frames([path, str(path)]))
    assert [frame.position for frame in frames] == [*range(12)] * 2
    assert {frame.fps for frame in frames} == {20.0}
    assert {frame.path for frame in frames} == {path}
    assert [round(float(frame.image.mean())) for frame in frames[:12]] == pytest.approx(
        [20 * i for i in range(12)], abs=6
    )


def test_a_video_over_http_streams(server: str, folder: Path) -> None:
    write_video(folder / "film.avi", 5)
    assert len(images_of(f"{server}/film.avi")) == 5


def test_what_is_no_video_is_named(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(b"no film")
    with pytest.raises(ImageReadError, match=r"video .*film\.mp4 cannot be opened"):
        images_of(tmp_path / "film.mp4")


@pytest.mark.parametrize("source", [7, "7"])
def test_cameras_are_numbers(source: int | str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "film.avi", 3)
    opened: list[Any] = []
    capture = cv2.VideoCapture

    def open_camera(number: Any) -> Any:
        opened.append(number)
        return capture(str(path))

    monkeypatch.setattr(cv2, "VideoCapture", open_camera)
    frames = list(read_frames(source))
    assert opened == [7]
    assert [(frame.path, frame.position) for frame in frames] == [(None, 0), (None, 1), (None, 2)]


def test_a_camera_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: type("Closed", (), {"isOpened": lambda self: False})())
    with pytest.raises(ImageReadError, match="camera 99 cannot be opened"):
        images_of(99)
