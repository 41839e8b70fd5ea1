"""Save checkpoints without end, the first with step argv[2], to argv[1]; argv[3] names the call to die in."""

import os
import signal
import sys
from pathlib import Path

import numpy as np

from wavegen.config import Config
from wavegen.runs.checkpoint import Checkpoint, save_checkpoint

path, first, deadly = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
calls = 0


def die(*args, **kwargs):
    global calls
    calls += 1
    if calls == int(deadly[-1]):
        os.kill(os.getpid(), signal.SIGKILL)


if deadly.startswith("fsync"):
    os.fsync = die
if deadly.startswith("replace"):
    Path.replace = die
for step in range(first, first + 1_000_000):
    weights = {"w": np.full(1_000_000, step, dtype=np.float32)}
    save_checkpoint(Checkpoint(Config(), step, weights, weights), path)
    print(step, flush=True)
