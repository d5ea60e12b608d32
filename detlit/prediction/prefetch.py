"""Read ahead in a thread."""

import threading
from collections.abc import Iterator
from queue import Empty, Full, Queue
from typing import Any, TypeVar

__all__ = ["read_ahead"]

Item = TypeVar("Item")

_WAIT = 0.1
"""Seconds after which a thread that waits looks whether anybody still wants its items."""


def read_ahead(items: Iterator[Item], depth: int = 2) -> Iterator[Item]:
    """Yield the items of an iterator, which runs up to ``depth`` items ahead in a thread; errors arrive in order.

    The thread ends, and closes the iterator, when the items are exhausted or this iterator is closed.
    """
    queue: Queue[tuple[str, Any]] = Queue(maxsize=depth)
    unwanted = threading.Event()
    thread = threading.Thread(target=_fill, args=(items, queue, unwanted), name="detlit read ahead", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = queue.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
    finally:
        unwanted.set()
        while True:  # what is in the way of a thread that puts
            try:
                queue.get_nowait()
            except Empty:
                break


def _fill(items: Iterator[Any], queue: "Queue[tuple[str, Any]]", unwanted: threading.Event) -> None:
    try:
        for item in items:
            if not _put(queue, ("item", item), unwanted):
                break
        else:
            _put(queue, ("end", None), unwanted)
    except BaseException as error:  # raised where the items are wanted
        _put(queue, ("error", error), unwanted)
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            close()


def _put(queue: "Queue[tuple[str, Any]]", message: tuple[str, Any], unwanted: threading.Event) -> bool:
    """Put a message as soon as there is room; tell whether it is still wanted."""
    while not unwanted.is_set():
        try:
            queue.put(message, timeout=_WAIT)
        except Full:
            continue
        return True
    return False
