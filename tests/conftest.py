"""Fixtures for all tests."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: test processes share few cores

import torch

torch.set_num_threads(1)

# HYPOTHESIS_PROFILE=thorough searches on; the quick profile is the same on every run.
settings.register_profile("quick", max_examples=50, derandomize=True, deadline=None)
settings.register_profile("thorough", max_examples=500, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Return the folder of real data sets that ``DETLIT_TEST_DATA`` names, or skip."""
    folder = os.environ.get("DETLIT_TEST_DATA")
    if folder is None:
        pytest.skip("set DETLIT_TEST_DATA to a folder of data sets to run this")
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"DETLIT_TEST_DATA={folder} is not a folder")
    return path
