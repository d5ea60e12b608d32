"""Processes that load data."""

import os
import signal
import threading

import cv2

__all__ = ["heed_the_parent_alone", "start_worker"]


def start_worker(worker_id: int) -> None:
    """Prepare a loader's worker, as its ``worker_init_fn``.

    OpenCV keeps to one thread, since workers already use all cores.
    """
    cv2.setNumThreads(0)
    cv2.ocl.setUseOpenCL(False)
    heed_the_parent_alone()


def heed_the_parent_alone() -> None:
    """Ignore SIGTERM in this process, unless the parent sends it.

    Schedulers, systemd and ``timeout`` signal every process of a run. A worker that dies of it would end the training
    process with an error, before that has finished its step and written a checkpoint. Nothing changes where the system
    does not tell who sent a signal, as on macOS.
    """
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_leave_when_the_parent_says_so, daemon=True).start()


def _leave_when_the_parent_says_so() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
