"""The cached bytes of a folder, and their removal."""

import sqlite3
from contextlib import closing

import numpy as np

from recordings import write_noise
from wavegen.audio.quantize import Quantizer
from wavegen.audio.waveform import Preparation
from wavegen.data.cache import CachedFiles, ClipSettings, cache_bytes, cached_bytes_of, index_path, remove_unused

SETTINGS = ClipSettings(Preparation(16000), Quantizer("mu_law", 256))


def test_reports_the_cached_bytes_of_a_folder_and_removes_them_alone(cache, recordings, tmp_path):
    (tmp_path / "audio-too").mkdir()  # a name that begins alike is another folder
    other = tmp_path / "audio-too" / "0.wav"
    write_noise(other, 3000, seed=9)
    clips = cache.prepare([*recordings, other], SETTINGS)
    assert cached_bytes_of(cache.folder, tmp_path / "audio") == CachedFiles(5, sum(1000 + i for i in range(5)))
    assert cached_bytes_of(cache.folder, tmp_path) == CachedFiles(6, sum(clip.n_samples for clip in clips))
    assert cache_bytes(cache.folder) > cached_bytes_of(cache.folder, tmp_path).n_bytes  # and the index
    assert remove_unused(cache.folder, tmp_path / "audio") == CachedFiles(5, 5010)
    assert cached_bytes_of(cache.folder, tmp_path) == CachedFiles(1, 3000)
    assert [clip.path.exists() for clip in clips] == [*[False] * 5, True]
    assert [clip.n_samples for clip in cache.prepare(recordings, SETTINGS)] == [1000 + i for i in range(5)]


def test_every_setting_of_a_file_is_dropped(cache, recordings, tmp_path):
    cache.prepare(recordings, SETTINGS)
    cache.prepare(recordings, ClipSettings(Preparation(8000), Quantizer("mu_law", 1024)))
    assert cached_bytes_of(cache.folder, tmp_path).n_files == 5
    remove_unused(cache.folder, tmp_path)
    assert not list((cache.folder / "clips").rglob("*.classes"))


def test_dropping_a_copy_leaves_the_other_file_usable(cache, recordings, tmp_path):
    (tmp_path / "copies").mkdir()
    copy = tmp_path / "copies" / "same.wav"
    copy.write_bytes(recordings[0].read_bytes())
    clips = cache.prepare([recordings[0], copy], SETTINGS)
    before = np.array(clips[0].classes())
    remove_unused(cache.folder, tmp_path / "copies")
    np.testing.assert_array_equal(clips[0].classes(), before)  # a run that uses it goes on
    assert cached_bytes_of(cache.folder, tmp_path) == CachedFiles(1, clips[0].n_samples)


def test_rejected_files_are_forgotten_too(cache, tmp_path):
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF")
    assert isinstance(cache.prepare([broken], SETTINGS)[0], str)
    remove_unused(cache.folder, tmp_path)
    with closing(sqlite3.connect(index_path(cache.folder))) as index:
        assert index.execute("SELECT count(*) FROM files").fetchone() == (0,)


def test_an_empty_cache_holds_nothing(cache, tmp_path):
    assert cached_bytes_of(cache.folder, tmp_path) == remove_unused(cache.folder, tmp_path) == CachedFiles(0, 0)
    assert cache_bytes(cache.folder) == 0
