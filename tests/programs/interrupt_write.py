"""Write a file, and send this process a signal before its content is on the disk.

Argument: the number of the signal.
"""

import os
import signal
import sys
from pathlib import Path

from wavegen.output_file import write_atomically

signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background may have been told to ignore it
os.fsync = lambda file: os.kill(os.getpid(), int(sys.argv[1]))
write_atomically(Path("file"), b"new")
