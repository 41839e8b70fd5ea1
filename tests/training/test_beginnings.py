"""Beginnings of sound in recordings, which stand on the training's tape again, behind silence."""

import numpy as np
import soundfile

import wavegen
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
