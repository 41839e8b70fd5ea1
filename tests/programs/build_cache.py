"""Build the cache argv[2] of the recordings in the folder argv[1], in as many processes at once as argv[4] says.

A process is killed after argv[3] files.
"""

import os
import signal
import sys
from pathlib import Path

import torch  # noqa: F401 (before the fork: building needs it, and imports it late)

from wavegen.audio.quantize import Quantizer
from wavegen.audio.waveform import Preparation
from wavegen.data.cache import ClipCache, ClipSettings

folder, cache, killed_at, n_processes = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])


def progress(done, total):
    if done == killed_at:
        os.kill(os.getpid(), signal.SIGKILL)


others = []
for _ in range(n_processes - 1):
    other = os.fork()
    if other == 0:
        others.clear()
        break
    others.append(other)
settings = ClipSettings(Preparation(16000), Quantizer("mu_law", 256))
ClipCache(cache).prepare(sorted(folder.iterdir()), settings, progress)
sys.exit(any(os.waitpid(other, 0)[1] for other in others))
