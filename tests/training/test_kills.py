"""Repeatedly killed or stopped, with every feature on: the resumed training ends as an undisturbed one.

WAVEGEN_KILLS says how often; 20 unless told.
"""

import os
import random
import signal
import time

import pytest

from command_line import Process
from recordings import write_tones
from trainings import assert_same_state, newest
from wavegen.runs.run_folder import RunFolder

KILLS = int(os.environ.get("WAVEGEN_KILLS", "20"))
STEPS_A_LIFE = 30  # killed before half of them, and some more until the signal comes
EVERYTHING = """
audio: {{sample_rate_hz: 4000}}
model: {{cycles: 1, dilation_cycle: 5, residual_channels: 12, gate_channels: 12, skip_channels: 16, head_channels: 16}}
training:
  steps: {steps}
  batch_size: 6
  window_targets: 100
  precision: bfloat16
  accumulation: 3
  activation_checkpointing: true
  threads: 1
  schedule: cosine
  ema_decay: 0.99
  weight_decay: 0.1
  validate_every: 40
  checkpoint_every: 7
  audition_every: 50
  audition_seconds: 0.1
"""


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    return write_tones(tmp_path_factory.mktemp("recordings"), [210] * 12)


def n_lines(run):
    file = run / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


@pytest.mark.parametrize(
    "kills",
    [4, pytest.param(KILLS, marks=[pytest.mark.slow, pytest.mark.timeout(1200 + 30 * KILLS)], id="many")],
)
def test_killed_again_and_again_it_ends_as_if_undisturbed(recordings, tmp_path, kills):
    whole, killed = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "killed")
    config, steps = tmp_path / "everything.yaml", STEPS_A_LIFE * kills
    config.write_text(EVERYTHING.format(steps=steps))

    def train(run):
        """Begin a training, or go on with it."""
        return Process(config, recordings, run.path, program="train_or_resume.py")

    with train(whole) as process:
        assert process.wait() == 0, process.words()
    chance = random.Random(11)
    for life in range(kills):
        before, lifetime = n_lines(killed.path), chance.randrange(STEPS_A_LIFE // 2)
        seconds = chance.uniform(0, 0.5) if life % 4 == 3 else 300  # some before they have made a step
        number = chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
        with train(killed) as process:
            deadline = time.monotonic() + seconds
            while n_lines(killed.path) < before + lifetime and time.monotonic() < deadline:
                time.sleep(0.002)
            time.sleep(chance.uniform(0, 0.01))  # not always right after a step
            process.send_signal(number)
            assert process.wait() in (-number, 128 + number), process.words()
    with train(killed) as process:
        assert process.wait() == 0, process.words()
    assert newest(whole.path).step == steps
    assert_same_state(newest(whole.path), newest(killed.path))
    timing = {"seconds", "targets_per_second"}
    figures = [
        [{key: value for key, value in entry.items() if key not in timing} for entry in run.metrics()]
        for run in (whole, killed)
    ]
    assert figures[0] == figures[1], "metrics without gaps or repeats"
    assert sorted(path.name for path in whole.auditions.iterdir()) == sorted(
        path.name for path in killed.auditions.iterdir()
    )
