"""Decode a file, print the number of the process that did it, and wait to be killed."""

import sys
import time
from pathlib import Path

from wavegen.audio import decoder, read

read.decode(Path(sys.argv[1]))
print(decoder._idle[0]._process.pid, flush=True)
time.sleep(100)
