"""Fixtures of the cache's tests."""

import pytest

from recordings import write_noise
from wavegen.data.cache import ClipCache


@pytest.fixture
def cache(tmp_path):
    return ClipCache(tmp_path / "cache")


@pytest.fixture
def recordings(tmp_path):
    """Five files of different content and length."""
    paths = [tmp_path / "audio" / f"{i}.wav" for i in range(5)]
    for i, path in enumerate(paths):
        write_noise(path, 1000 + i, seed=i)
    return paths
