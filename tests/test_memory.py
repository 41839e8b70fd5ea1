"""Memory that does not grow with the length of a recording; numpy's arrays count, mapped files do not."""

import tracemalloc

import numpy as np
import pytest
import soundfile

from wavegen.audio import waveform
from wavegen.audio.levels import RecordingProfile
from wavegen.audio.quantize import Decoded, Quantizer
from wavegen.audio.waveform import Preparation, load_waveform
from wavegen.audio.write import write_clip
from wavegen.data.cache import ClipCache, ClipSettings
from wavegen.evaluation.baselines import fit_baselines

RATE_HZ = 8000
N_SAMPLES = 600 * RATE_HZ  # 19 MB as floats, 5 MB as classes
PREPARED = Preparation(RATE_HZ, remove_dc=True, trim_db=50, pause_seconds=0.3, level="peak", max_gain_db=40)


def peak_bytes(call):
    """Return a call's result and the most memory that it used."""
    tracemalloc.start()
    try:
        return call(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """Ten minutes of noise with pauses, in a file; all that takes part is imported."""
    path, generator = tmp_path_factory.mktemp("recording") / "recording.flac", np.random.default_rng(0)
    with soundfile.SoundFile(path, "w", RATE_HZ, 1) as file:
        for minute in range(10):
            noise = 0.1 * generator.standard_normal(60 * RATE_HZ).astype(np.float32)
            noise[: minute * 3000] = 0
            file.write(noise)
    soundfile.write(path.with_name("second.flac"), noise[-RATE_HZ:], RATE_HZ)
    ClipCache(path.parent / "cache").prepare([path.with_name("second.flac")], ClipSettings(PREPARED, Quantizer()))
    return path


@pytest.fixture
def small_blocks(monkeypatch):
    """Scarce memory: the recording is 100 blocks long."""
    monkeypatch.setattr(waveform, "BLOCK", 1 << 15)
    monkeypatch.setattr(waveform, "MAPPED_BYTES", 1 << 19)


def test_a_recording_is_prepared_and_loaded_in_blocks(recording, tmp_path, small_blocks):
    settings = ClipSettings(PREPARED, Quantizer())
    (clip,), prepared_bytes = peak_bytes(lambda: ClipCache(tmp_path / "cache").prepare([recording], settings))
    loaded, loaded_bytes = peak_bytes(lambda: load_waveform(recording, PREPARED))
    assert max(prepared_bytes, loaded_bytes) < 8e6
    assert 0.95 * N_SAMPLES < len(loaded) == clip.n_samples < N_SAMPLES
    assert np.array_equal(settings.quantizer.encode(loaded), clip.classes())


def test_classes_are_measured_and_counted_in_blocks(monkeypatch):
    monkeypatch.setattr("wavegen.evaluation.baselines.PIECE", 1 << 16)
    monkeypatch.setattr("wavegen.audio.levels.MOST_FRAMES", 100)
    quantizer = Quantizer("mu_law", 16)
    classes = np.random.default_rng(1).integers(0, 16, N_SAMPLES, dtype=np.uint8)
    profile, profile_bytes = peak_bytes(lambda: RecordingProfile.of([Decoded(classes, quantizer)], RATE_HZ))
    _, counted_bytes = peak_bytes(lambda: fit_baselines([classes], 16))
    assert max(profile_bytes, counted_bytes) < 8e6
    assert profile == RecordingProfile.of([quantizer.decode(classes)], RATE_HZ)


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg"])
def test_a_recording_is_written_in_blocks(ending, tmp_path):
    clip = np.linspace(-1, 1, N_SAMPLES, dtype=np.float32)
    _, most = peak_bytes(lambda: write_clip(clip, str(tmp_path / f"clip.{ending}"), RATE_HZ, overwrite=False))
    assert most < 3e6
    assert soundfile.info(tmp_path / f"clip.{ending}").frames == N_SAMPLES
