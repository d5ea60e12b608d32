"""Images and frames out of whatever people have: files, folders, patterns, URLs, videos, cameras and arrays."""

import glob
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias
from urllib.parse import unquote, urlsplit

import numpy as np
import torch
from numpy.typing import NDArray

from detlit.data.images import decode_image, read_image, to_rgb8
from detlit.errors import ConfigurationError, DatasetError, ImageReadError
from detlit.prediction.video import VIDEO_SUFFIXES, read_video

__all__ = ["IMAGE_SUFFIXES", "ChannelOrder", "Frame", "OnBroken", "Source", "expand", "read_frames"]

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Image files that a folder contributes, besides videos."""

Source: TypeAlias = Any
"""A path, pattern, folder, URL, PIL image, array, tensor, ``bytes``, camera number, or an iterable of these."""

ChannelOrder = Literal["RGB", "BGR"]

OnBroken: TypeAlias = Callable[[ImageReadError], object]
"""What hears of an image that cannot be read."""

_STREAMS = ("rtsp://", "rtsps://", "rtmp://", "udp://", "tcp://")
_DOWNLOADS = ("http://", "https://")
_TRANSPOSITIONS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
"""PIL's ``Transpose`` that undoes each EXIF orientation."""


class Frame(NamedTuple):
    """One image to look at.

    Attributes:
        image: ``(H, W, 3)`` uint8 RGB.
        path: its file, or the last part of its URL.
        position: in its video, from 0; ``None`` for an image.
        fps: frames per second of its video, where known.
    """

    image: NDArray[np.uint8]
    path: Path | None = None
    position: int | None = None
    fps: float | None = None


def expand(source: str | Path, *, recursive: bool = False) -> list[str | Path]:
    """Return the files that a path or pattern stands for, sorted; a URL or the number of a camera is itself.

    Args:
        source: a file, a folder, a pattern such as ``"day*/*.jpg"``, a URL, or digits.
        recursive: look into the subfolders of a folder too; a pattern says so itself, with ``**``.

    Raises:
        DatasetError: nothing is there, or no image or video is in the folder.
    """
    text = str(source)
    if isinstance(source, str) and (text.startswith((*_STREAMS, *_DOWNLOADS)) or text.isdecimal()):
        return [text]
    path = Path(source)
    if path.is_dir():
        suffixes = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)
        files = path.rglob("*") if recursive else path.iterdir()
        found = sorted(file for file in files if file.suffix.lower() in suffixes and file.is_file())
        if not found:
            raise DatasetError(f"no image or video in folder {path}: looked for {', '.join(suffixes)}.")
        return [*found]
    if path.exists():
        return [path]
    if glob.has_magic(text):
        matches = sorted(Path(match) for match in glob.glob(text, recursive=True))  # noqa: PTH207 - takes any path
        if not matches:
            raise DatasetError(f"no file matches {text}: check the pattern.")
        return [*(file for file in matches if file.is_file())]
    raise DatasetError(f"there is no file or folder {path}: check the source.")


def read_frames(
    source: Source,
    *,
    recursive: bool = False,
    channel_order: ChannelOrder = "RGB",
    max_download: int = 50_000_000,
    on_broken: OnBroken | None = None,
) -> Iterator[Frame]:
    """Yield the images of a source in order, one at a time.

    Args:
        source: see :data:`Source`.
        recursive: look into the subfolders of folders.
        channel_order: of NumPy arrays with colours; everything else knows its own.
        max_download: largest image in bytes that a URL may give.
        on_broken: is told what cannot be read, which then is skipped; ``None`` raises it.

    Raises:
        ConfigurationError: something that is no image, or an unknown channel order.
        DatasetError: a path that leads nowhere.
        ImageReadError: an image that cannot be read, without ``on_broken``.
    """
    if channel_order not in ("RGB", "BGR"):
        raise ConfigurationError(f"channel_order={channel_order!r} is unknown: choose 'RGB' or 'BGR'.")
    for item in _items(source, recursive):
        try:
            yield from _read(item, channel_order, max_download)
        except ImageReadError as error:
            if on_broken is None:
                raise
            on_broken(error)


def _items(source: Source, recursive: bool) -> Iterator[Any]:
    """Yield what stands for one image, video or camera each."""
    if isinstance(source, (str, Path)):
        yield from expand(source, recursive=recursive) if _leads_somewhere(source) else [Path(source)]
    elif isinstance(source, (np.ndarray, torch.Tensor)) and source.ndim == 4:
        yield from source
    elif isinstance(source, (np.ndarray, torch.Tensor, bytes, bytearray, memoryview, int)) or _is_pil(source):
        yield source
    elif isinstance(source, Iterable):
        for item in source:
            yield from _items(item, recursive)
    else:
        raise ConfigurationError(
            f"a source is a {type(source).__name__}: give a path, a URL, a PIL image, an array, a tensor, bytes, the "
            "number of a camera, or a list of these."
        )


def _leads_somewhere(source: str | Path) -> bool:
    """Tell a missing image, which is one broken image among others, from a mistyped folder or pattern."""
    return Path(source).suffix.lower() not in IMAGE_SUFFIXES or glob.has_magic(str(source)) or "://" in str(source)


def _read(item: Any, channel_order: ChannelOrder, max_download: int) -> Iterator[Frame]:
    if isinstance(item, (str, Path)):
        yield from _read_named(item, max_download)
    elif isinstance(item, int):
        yield from _video_frames(item, None)
    elif isinstance(item, (bytes, bytearray, memoryview)):
        yield Frame(decode_image(np.frombuffer(item, dtype=np.uint8), "in bytes"))
    elif isinstance(item, torch.Tensor):
        yield Frame(to_rgb8(_channels_last(item), "in a tensor"))
    elif isinstance(item, np.ndarray):
        if channel_order == "BGR" and item.ndim == 3 and item.shape[2] in (3, 4):
            item = item[..., [2, 1, 0]]
        yield Frame(to_rgb8(item, "in an array"))
    else:
        yield Frame(_from_pil(item))


def _read_named(item: str | Path, max_download: int) -> Iterator[Frame]:
    text = str(item)
    if isinstance(item, str) and text.isdecimal() and not Path(text).exists():
        yield from _video_frames(int(text), None)
    elif isinstance(item, str) and text.startswith((*_STREAMS, *_DOWNLOADS)):
        name = Path(unquote(urlsplit(text).path)).name or urlsplit(text).netloc
        if text.startswith(_STREAMS) or Path(name).suffix.lower() in VIDEO_SUFFIXES:
            yield from _video_frames(text, Path(name))
        else:
            yield Frame(decode_image(_download(text, max_download), text), Path(name))
    elif Path(item).suffix.lower() in VIDEO_SUFFIXES:
        yield from _video_frames(text, Path(item))
    else:
        yield Frame(read_image(item), Path(item))


def _video_frames(source: str | int, path: Path | None) -> Iterator[Frame]:
    fps, images = read_video(source)
    for position, image in enumerate(images):
        yield Frame(image, path, position, fps)


def _download(url: str, limit: int) -> NDArray[np.uint8]:
    """Return the bytes behind a URL, at most ``limit`` of them."""
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            data = response.read(limit + 1)
    except (OSError, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise ImageReadError(f"image {url} cannot be downloaded ({reason}): check the URL.") from error
    if len(data) > limit:
        raise ImageReadError(f"image {url} has more than {limit} bytes: allow more with max_download.")
    return np.frombuffer(data, dtype=np.uint8)


def _channels_last(tensor: torch.Tensor) -> NDArray[Any]:
    """Return an image ``(H, W, C)`` or ``(H, W)`` of a tensor ``(C, H, W)`` or ``(H, W)``."""
    if tensor.dtype in (torch.bfloat16, torch.float16):
        tensor = tensor.float()
    array: NDArray[Any] = tensor.detach().cpu().numpy()
    return array.transpose(1, 2, 0) if array.ndim == 3 else array


def _is_pil(value: Any) -> bool:
    """Tell a PIL image without importing PIL."""
    return type(value).__module__.startswith("PIL.")


def _from_pil(image: Any) -> NDArray[np.uint8]:
    """Return a PIL image as ``(H, W, 3)`` uint8 RGB, turned as its EXIF data ask."""
    transposition = _TRANSPOSITIONS.get(image.getexif().get(0x0112))
    if transposition is not None:
        image = image.transpose(transposition)
    if image.mode not in ("RGB", "RGBA", "L", "F", "I;16", "I"):
        image = image.convert("RGB")
    array = np.asarray(image)
    return to_rgb8(array.astype(np.uint16) if image.mode == "I" else array, "from PIL")
