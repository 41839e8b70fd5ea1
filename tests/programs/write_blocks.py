"""Write blocks of noise to the target argv[2] without end; argv[1] says what comes in between."""

import os
import resource
import signal
import sys

import numpy as np

from wavegen.audio.write import AudioWriter
from wavegen.errors import AudioError

what, target = sys.argv[1:]
if room := {"full disk": 20_000, "no room": 20}.get(what):
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
block = np.random.default_rng(0).uniform(-0.5, 0.5, 1600).astype(np.float32)
try:
    with AudioWriter(target, 16000, n_samples=None) as writer:
        while True:
            writer.write(block)
            if what == "kill" and writer.n_written == 80_000:
                os.kill(os.getpid(), signal.SIGKILL)
except BrokenPipeError:
    sys.exit(7)
except AudioError as error:
    sys.exit(str(error))
