"""Fixtures for all tests."""

from pathlib import Path

import pytest

from tests.shared import shared_data_folder, why_missing


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of shared test data; the test is skipped where it is missing."""
    folder = shared_data_folder()
    if missing := why_missing(folder):
        pytest.skip(missing)
    return folder
