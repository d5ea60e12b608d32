"""Processes that load data."""

import os
import signal
import subprocess
import sys

import pytest

WORKER = """
import time
from detlit.data.workers import heed_the_parent_alone
heed_the_parent_alone()
print(flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="the system does not tell who sent a signal")
def test_a_worker_leaves_when_its_parent_says_so_and_not_before() -> None:
    worker = subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.PIPE)
    assert worker.stdout is not None
    worker.stdout.readline()
    subprocess.run(["sh", "-c", f"kill -TERM {worker.pid}"], check=True)
    with pytest.raises(subprocess.TimeoutExpired):
        worker.wait(0.5)
    os.kill(worker.pid, signal.SIGTERM)
    assert worker.wait(10) == 0


def test_a_worker_keeps_opencv_to_one_thread() -> None:
    code = "import cv2; from detlit.data.workers import start_worker; start_worker(0); print(cv2.getNumThreads())"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(printed) == 1
