import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from recordings import write_noise
from wavegen.audio.quantize import Quantizer
from wavegen.audio.waveform import Preparation, load_waveform, open_audio
from wavegen.data import cache as cache_module
from wavegen.data.cache import ClipCache, ClipSettings, cache_folder
from wavegen.data.corpus import StoredClip
from wavegen.errors import DataError, UsageError

RATE = 16000
SETTINGS = ClipSettings(Preparation(RATE), Quantizer("mu_law", 256))


@pytest.fixture
def no_decoding(monkeypatch):
    """From when the returned function is called, decoding fails the test."""

    def forbid():
        def fail(path, *_):
            raise AssertionError(f"{path} was decoded")

        monkeypatch.setattr(cache_module, "open_audio", fail)

    return forbid


def fingerprint(clips):
    return [hashlib.sha256(clip.classes().tobytes()).hexdigest() for clip in clips]


@pytest.mark.parametrize("classes", [16, 256, 1024])
def test_a_clip_is_its_files_classes(cache, recordings, classes):
    quantizer = Quantizer("mu_law", classes)
    clips = cache.prepare(recordings, ClipSettings(Preparation(8000, level="peak"), quantizer))
    for path, clip in zip(recordings, clips, strict=True):
        expected = quantizer.encode(load_waveform(path, Preparation(8000, level="peak")))
        with open_audio(path, Preparation(8000, level="peak")) as loaded:
            peak = loaded.clip.peak
        assert clip.classes().dtype == expected.dtype
        np.testing.assert_array_equal(clip.classes(), expected)
        assert clip.n_samples == len(expected)
        assert clip.path.stat().st_size == expected.nbytes
        assert clip.source_seconds == loaded.source_seconds
        assert clip.peak == pytest.approx(peak)
        assert clip.content_hash == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files in /proc")
def test_classes_are_read_only_and_keep_no_file_open(cache, recordings):
    clips = cache.prepare(recordings, SETTINGS)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for clip in clips * 100:
        with pytest.raises(ValueError, match="read-only"):
            clip.classes()[0] = 0
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_the_second_time_nothing_is_read(cache, recordings, no_decoding, monkeypatch):
    first = cache.prepare(recordings, SETTINGS)
    no_decoding()
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("a file was read"))
    assert ClipCache(cache.folder).prepare(recordings, SETTINGS) == first


def test_a_bad_file_is_not_decoded_twice(cache, recordings, no_decoding):
    recordings[1].write_text("no audio")
    first = cache.prepare(recordings, SETTINGS)
    assert first[1].startswith("libsndfile cannot read it (no audio format is recognized in it)")
    assert sum(isinstance(outcome, StoredClip) for outcome in first) == 4
    no_decoding()
    assert cache.prepare(recordings, SETTINGS) == first


def test_only_what_changed_is_decoded(cache, recordings, monkeypatch):
    before = fingerprint(cache.prepare(recordings, SETTINGS))
    decoded = []

    def counting(path, *settings):
        decoded.append(path)
        return open_audio(path, *settings)

    monkeypatch.setattr(cache_module, "open_audio", counting)
    write_noise(recordings[2], 1002, seed=99)  # of the same size
    os.utime(recordings[2], (1, 1))  # a disk may note times so coarsely that this one would be the same
    after = fingerprint(cache.prepare(recordings, SETTINGS))
    assert decoded == [recordings[2]]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, True, False, True, True]


@pytest.mark.parametrize(
    "other",
    [
        ClipSettings(Preparation(8000), Quantizer("mu_law", 256)),
        ClipSettings(Preparation(RATE, trim_db=40.0), Quantizer("mu_law", 256)),
        ClipSettings(Preparation(RATE, level="peak"), Quantizer("mu_law", 256)),
        ClipSettings(Preparation(RATE, remove_dc=True), Quantizer("mu_law", 256)),
        ClipSettings(Preparation(RATE, pause_seconds=1.0), Quantizer("mu_law", 256)),
        ClipSettings(Preparation(RATE, max_gain_db=30.0), Quantizer("mu_law", 256)),
        ClipSettings(Preparation(RATE), Quantizer("linear", 256)),
        ClipSettings(Preparation(RATE), Quantizer("mu_law", 255)),
    ],
)
def test_other_settings_are_other_clips(cache, recordings, other, no_decoding):
    first = cache.prepare(recordings, SETTINGS)
    second = cache.prepare(recordings, other)
    assert not {clip.path for clip in first} & {clip.path for clip in second}
    no_decoding()
    assert cache.prepare(recordings, SETTINGS) == first
    assert cache.prepare(recordings, other) == second


def test_moved_copied_and_touched_files_are_not_decoded_again(cache, recordings, no_decoding):
    clips = cache.prepare(recordings, SETTINGS)
    no_decoding()
    moved = recordings[0].rename(recordings[0].with_name("moved.wav"))
    os.utime(recordings[1], (1, 1))
    assert cache.prepare([moved, *recordings[1:]], SETTINGS) == clips


@pytest.mark.parametrize("way", ["moved into place", "written over"])
def test_a_file_replaced_by_another_of_its_size_and_time_is_decoded(cache, recordings, tmp_path, way):
    before = fingerprint(cache.prepare(recordings, SETTINGS))
    other, time_ns = tmp_path / "other.wav", recordings[2].stat().st_mtime_ns
    write_noise(other, 1002, seed=99)
    assert other.stat().st_size == recordings[2].stat().st_size
    if way == "moved into place":
        other.replace(recordings[2])
    else:
        recordings[2].write_bytes(other.read_bytes())
    os.utime(recordings[2], ns=(time_ns, time_ns))
    after = fingerprint(cache.prepare(recordings, SETTINGS))
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, True, False, True, True]


@pytest.mark.parametrize("damage", ["removed", "cut off"])
def test_a_lost_clip_is_decoded_again(cache, recordings, damage):
    clips = cache.prepare(recordings, SETTINGS)
    expected = fingerprint(clips)
    if damage == "removed":
        clips[3].path.unlink()
    else:
        os.truncate(clips[3].path, 10)
    with pytest.raises(DataError, match=r"part of the cache is missing \(.*\); start again to rebuild it") as error:
        clips[3].classes()
    assert str(error.value).count(str(clips[3].path)) == 1
    assert fingerprint(cache.prepare(recordings, SETTINGS)) == expected


def test_files_that_cannot_be_read_now_are_tried_again(cache, recordings, monkeypatch):
    gone = recordings[0].rename(recordings[0].with_name("gone.wav"))
    assert cache.prepare(recordings, SETTINGS)[0] == "cannot be read (No such file or directory)"
    gone.rename(recordings[0])

    torchs = RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory")
    for error in (MemoryError(), torchs):

        def no_memory(*_, error=error):
            raise error

        with monkeypatch.context() as patched:
            patched.setattr(cache_module, "open_audio", no_memory)
            assert cache.prepare(recordings[:1], SETTINGS)[0].startswith("needs more memory than there is")
    assert isinstance(cache.prepare(recordings[:1], SETTINGS)[0], StoredClip)


def test_a_file_that_is_still_being_written_is_not_kept(cache, recordings, monkeypatch):
    @contextmanager
    def slow(path, *settings):
        with open_audio(path, *settings) as loaded:
            write_noise(path, 3000)
            yield loaded

    with monkeypatch.context() as patched:
        patched.setattr(cache_module, "open_audio", slow)
        assert cache.prepare(recordings[:1], SETTINGS) == [
            "was written to while it was read; start again when it is whole"
        ]
    assert cache.prepare(recordings[:1], SETTINGS)[0].n_samples == 3000


def test_progress_counts_what_is_known_then_each_file(cache, recordings):
    seen = []
    cache.prepare(recordings[:2], SETTINGS)
    cache.prepare(recordings, SETTINGS, lambda done, total: seen.append((done, total)))
    assert seen == [(2, 5), (3, 5), (4, 5), (5, 5)]


def test_torchs_threads_are_given_back(cache, recordings):
    before = torch.get_num_threads()
    cache.prepare(recordings, SETTINGS)
    assert torch.get_num_threads() == before


def test_an_error_in_progress_stops_the_work_and_keeps_what_was_done(cache, recordings):
    def interrupt(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.prepare(recordings, SETTINGS, interrupt)
    known = []
    cache.prepare(recordings, SETTINGS, lambda done, total: known.append(done))
    assert known[0] >= 2


BUILD_CACHE = Path(__file__).parents[1] / "programs" / "build_cache.py"
N_MANY = 60


def build_elsewhere(folder, cache, killed_at=-1, n_processes=1):
    """Build a cache in processes of their own, which are killed after so many files; returns the exit code."""
    arguments = map(str, (folder, cache.folder, killed_at, n_processes))
    return subprocess.run([sys.executable, "-W", "error", str(BUILD_CACHE), *arguments], check=False).returncode


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    for i in range(N_MANY):
        write_noise(folder / f"{i:03d}.wav", 2000, seed=i)
    return folder


def test_kill_while_building_leaves_a_cache_that_the_next_run_completes(many, cache, tmp_path):
    paths = sorted(many.iterdir())
    assert build_elsewhere(many, cache, killed_at=20) == -signal.SIGKILL
    stored = sum(1 for path in cache.folder.glob("clips/*/*"))
    assert 20 <= stored < N_MANY

    clips = cache.prepare(paths, SETTINGS)

    untouched = ClipCache(tmp_path / "other").prepare(paths, SETTINGS)
    assert fingerprint(clips) == fingerprint(untouched)


def test_two_processes_build_at_once(many, cache, no_decoding):
    assert build_elsewhere(many, cache, n_processes=2) == 0
    no_decoding()
    clips = cache.prepare(sorted(many.iterdir()), SETTINGS)
    assert [clip.n_samples for clip in clips] == [2000] * N_MANY
    assert not list((cache.folder / "partial").iterdir())


def test_leftovers_of_killed_processes_are_removed(cache, recordings):
    cache.prepare(recordings[:1], SETTINGS)
    fresh, old = cache.folder / "partial" / "fresh", cache.folder / "partial" / "old"
    fresh.touch()
    old.touch()
    os.utime(old, (time.time() - 7200,) * 2)
    cache.prepare(recordings, SETTINGS)
    assert fresh.exists()
    assert not old.exists()


def test_names_that_are_not_utf_8(cache, tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.wav")
    write_noise(tmp_path / "plain.wav", 500)
    (tmp_path / "plain.wav").rename(path)
    assert cache.prepare([path], SETTINGS) == cache.prepare([path], SETTINGS)


def test_a_cache_that_cannot_be_made(tmp_path, recordings):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"the cache cannot be written \(.*\); set WAVEGEN_CACHE to a folder") as caught:
        ClipCache(tmp_path / "file" / "cache").prepare(recordings, SETTINGS)
    assert caught.value.exit_code == 1
    assert len(str(caught.value).splitlines()) == 1


def test_a_full_disk_is_not_the_files_fault(cache, recordings, monkeypatch):
    whole = Path.open

    def full(path, *how):
        if path.parent.name == "partial":
            raise OSError(28, "No space left on device")
        return whole(path, *how)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", full)
        with pytest.raises(DataError, match=r"the cache cannot be written \(No space left on device\)"):
            cache.prepare(recordings, SETTINGS)
    assert all(isinstance(outcome, StoredClip) for outcome in cache.prepare(recordings, SETTINGS))


def test_the_error_of_a_damaged_index_names_the_file_to_delete(cache, recordings):
    cache.prepare(recordings, SETTINGS)
    cache_module.index_path(cache.folder).write_bytes(b"this is no database, and longer than its header" * 100)
    with pytest.raises(DataError, match=r"index-4\.sqlite3: the cache is damaged .*; delete this file"):
        cache.prepare(recordings, SETTINGS)
    cache_module.index_path(cache.folder).unlink()
    assert all(isinstance(outcome, StoredClip) for outcome in cache.prepare(recordings, SETTINGS))


def test_a_locked_index_is_waited_for_then_explained(cache, recordings, monkeypatch):
    cache.prepare(recordings[:1], SETTINGS)
    monkeypatch.setattr(cache_module, "BUSY_SECONDS", 0.1)
    with sqlite3.connect(cache_module.index_path(cache.folder)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DataError, match=r"the cache cannot be used \(database is locked\)"):
            cache.prepare(recordings, SETTINGS)
    other.close()


def test_where_the_cache_lies(monkeypatch, tmp_path):
    for name in ("WAVEGEN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "wavegen"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "wavegen"
    monkeypatch.setenv("WAVEGEN_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine" == ClipCache().folder
    monkeypatch.setenv("WAVEGEN_CACHE", "~/here")  # as a shell leaves it in quotes
    assert cache_folder() == tmp_path / "here"


def test_no_home_to_keep_it_in(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    for name in ("WAVEGEN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(UsageError, match="no home folder to keep the cache in; set WAVEGEN_CACHE to a folder"):
        cache_folder()
