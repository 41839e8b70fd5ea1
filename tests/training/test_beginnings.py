"""Windows of beginnings, which stand on the tape again behind silence, and windows of quiet sound, which are fewer."""

from dataclasses import replace

import numpy as np
import pytest
import soundfile

import wavegen
from wavegen.data.corpus import Clip
from wavegen.data.windows import MOST_BEGINNINGS
from wavegen.model.building import build_model
from wavegen.training.task import task_type

RATE = 4000
TONES = 4


def test_in_one_long_recording_sound_begins_after_its_pauses_too(tmp_path):
    """Four tones with 0.3 s between them and 0.1 s within: no pause is as short as that."""
    tone, noise = 0.5 * np.sin(np.arange(RATE // 2) * 0.7), np.random.default_rng(0)
    quiet = [np.zeros(round(seconds * RATE)) for seconds in (0.1, 0.3)]
    sound = np.concatenate([tone, quiet[0], tone, quiet[1]] * TONES)
    sound += 1e-4 * noise.standard_normal(len(sound))  # 71 dB below
    soundfile.write(tmp_path / "rehearsal.wav", sound, RATE)
    overrides = [f"data.folder={tmp_path}", f"audio.sample_rate_hz={RATE}"]
    config = wavegen.load_config("small", [*overrides, "data.beginnings=1", "model.cycles=1", "model.dilation_cycle=4"])
    corpus = task_type(config).read_corpus(config)
    windows = task_type(config)(config, corpus).windows(build_model(config))
    assert windows.n_beginnings == TONES * MOST_BEGINNINGS  # the recording's own, and three after pauses


@pytest.mark.parametrize(
    ("overrides", "weight"), [([], 0.4), (["data.quiet_weight=1"], 1), (["mel.n_mels=8", "mel.hop_length=40"], 1)]
)
def test_quiet_windows_are_trained_on_less_often_unless_frames_say_what_is_quiet(tmp_path, overrides, weight):
    noise = 0.5 * np.random.default_rng(0).uniform(-1, 1, 64 * RATE)
    quiet = np.arange(len(noise)) // (8 * RATE) % 4 == 3  # every fourth of eight seconds
    soundfile.write(tmp_path / "rain.wav", noise * np.where(quiet, 0.03, 1), RATE)
    given = [f"data.folder={tmp_path}", f"audio.sample_rate_hz={RATE}", "data.validation=0", "audio.pause_seconds=null"]
    smaller = ["model.cycles=1", "model.dilation_cycle=4", "training.window_targets=400", *overrides]
    config = wavegen.load_config("small", [*given, *smaller])
    task = task_type(config)
    windows = task(config, task.read_corpus(config)).windows(build_model(config))
    silence, rms = config.quantization.classes // 2, []
    for item in range(windows.windows_per_epoch):
        classes = windows.batch(item, 1).targets[0]
        rms.append(np.abs(classes - silence).mean())
    found = (np.array(rms) < 0.75 * np.max(rms)).mean()
    share = 0.25 * weight / (0.75 + 0.25 * weight)
    assert found == pytest.approx(share, abs=0.03)


def one_clip(folder, overrides):
    """The configuration of a training on one recording, and its corpus."""
    soundfile.write(folder / "rain.wav", 0.5 * np.random.default_rng(0).uniform(-1, 1, 2 * RATE), RATE)
    given = [f"data.folder={folder}", f"audio.sample_rate_hz={RATE}", "data.validation=0"]
    config = wavegen.load_config("small", [*given, "model.cycles=1", "model.dilation_cycle=4", *overrides])
    return config, task_type(config).read_corpus(config)


@pytest.mark.parametrize("weight", [1, 0.4])
def test_clips_without_samples_are_left_out(tmp_path, weight):
    """Features of no whole frame leave such clips."""
    config, corpus = one_clip(tmp_path, [f"data.quiet_weight={weight}", "data.following=0.5"])
    (clip,) = corpus.clips
    clips = (replace(clip, n_samples=0), clip)
    windows = task_type(config)(config, replace(corpus, clips=clips)).windows(build_model(config))
    assert windows.clips == [clip]
    assert windows.batch(0, 1).is_real.any()


def test_without_a_weight_no_sample_is_read_before_it_is_needed(tmp_path, monkeypatch):
    config, corpus = one_clip(tmp_path, ["data.quiet_weight=1", "data.beginnings=0"])
    monkeypatch.setattr(Clip, "classes", lambda clip: pytest.fail("read"))
    task_type(config)(config, corpus).windows(build_model(config)).n_targets(0, 9)
