"""Decode a file, print the number of the process that did it, and wait to be killed."""

import sys
import time
from pathlib import Path

from wavegen.audio import decoding, files

files.decode(Path(sys.argv[1]))
print(decoding._idle[0]._process.pid, flush=True)
time.sleep(100)
