"""Killed or asked to stop again and again: what is resumed ends as if undisturbed, with everything switched on.

WAVEGEN_KILLS says how often; 20 unless told.
"""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from recordings import write_tones
from trainings import assert_same_state, newest
from wavegen.training.run_folder import RunFolder

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("WAVEGEN_KILLS", "20"))
STEPS_A_LIFE = 30  # killed before half of them, and some more until the signal comes
STEPS = STEPS_A_LIFE * KILLS
EVERYTHING = f"""
audio: {{sample_rate_hz: 4000}}
model: {{cycles: 1, dilation_cycle: 5, residual_channels: 12, gate_channels: 12, skip_channels: 16, head_channels: 16}}
training:
  steps: {STEPS}
  batch_size: 6
  window_targets: 100
  precision: bfloat16
  accumulation: 3
  activation_checkpointing: true
  threads: 2
  schedule: cosine
  ema_decay: 0.99
  weight_decay: 0.1
  validate_every: 40
  checkpoint_every: 7
  audition_every: 150
  audition_seconds: 0.1
"""

# Imports once, then forks a training for each line it is sent; forking is safe: no thread has been started yet.
NURSERY = """
import os, signal, sys
from pathlib import Path
import torch
from wavegen.config import load_config
from wavegen.training import launch
from wavegen.training.distributed import Group
from wavegen.training.interruption import Interrupted
from wavegen.training.run_folder import RunFolder

config = load_config(sys.argv[1], [f"data.folder={sys.argv[2]}"])
for line in sys.stdin:
    run = RunFolder(Path(line.strip()))
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # before the training listens it just dies
        group = Group(device=torch.device("cpu"))
        if run.step_checkpoints():
            trainer = launch.resume(run, lambda frozen: frozen, False, group, [], lambda text: None)
        else:
            trainer = launch.new_run(config, run, group, [], lambda text: None)
        try:
            trainer.fit()
        except Interrupted as stop:
            os._exit(stop.exit_code)
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def nursery(tmp_path_factory):
    folder = tmp_path_factory.mktemp("everything")
    write_tones(folder / "recordings", [210] * 12)
    (folder / "everything.yaml").write_text(EVERYTHING)
    call = [sys.executable, "-c", NURSERY, str(folder / "everything.yaml"), str(folder / "recordings")]
    with subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.stdin.close()


def begin(nursery, run):
    """Start a training, or go on with it; returns its process."""
    print(run, file=nursery.stdin, flush=True)
    return int(nursery.stdout.readline())


def exit_code(nursery):
    return int(nursery.stdout.readline())


def n_lines(run):
    file = run / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


@pytest.mark.timeout(1200 + 30 * KILLS)
def test_killed_again_and_again_it_ends_as_if_undisturbed(nursery, tmp_path):
    whole, killed = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "killed")
    begin(nursery, whole.path)
    assert exit_code(nursery) == 0
    chance = random.Random(11)
    deaths = 0
    for life in range(KILLS):
        before, lifetime = n_lines(killed.path), chance.randrange(STEPS_A_LIFE // 2)
        child = begin(nursery, killed.path)
        seconds = chance.uniform(0, 0.5) if life % 4 == 3 else 300  # some before they have made a step
        deadline = time.monotonic() + seconds
        while n_lines(killed.path) < before + lifetime and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.01))  # not always right after a step
        number = chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
        os.kill(child, number)
        deaths += exit_code(nursery) in (-number, 128 + number)
    assert deaths == KILLS
    begin(nursery, killed.path)
    assert exit_code(nursery) == 0
    assert newest(whole.path).step == STEPS
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
