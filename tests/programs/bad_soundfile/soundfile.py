"""Take the place of soundfile in a decoder: files of certain names make it crash, hang, or use too much memory.

The decoder's time limit is suspended while this is imported: on a busy machine that alone may take longer.
"""

import ctypes
import faulthandler
import importlib.util
import os
import signal
import sys
import time
from pathlib import Path

faulthandler.cancel_dump_traceback_later()
sys.path.remove(str(Path(__file__).parent))
sys.modules.pop("soundfile")
spec = importlib.util.find_spec("soundfile")
real = importlib.util.module_from_spec(spec)
sys.modules["soundfile"] = real
spec.loader.exec_module(real)


class SoundFile(real.SoundFile):
    def __init__(self, path):
        self.what = path.rpartition(b"/")[2].split(b".")[0]
        self.misbehave(b"at once")
        super().__init__(path)

    def buffer_read_into(self, *arguments, **options):
        self.misbehave(b"later")
        return super().buffer_read_into(*arguments, **options)

    def misbehave(self, when):
        if self.what == b"crash " + when:
            ctypes.string_at(0)
        if self.what == b"abort " + when:
            os.abort()
        if self.what == b"kill " + when:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.what == b"hang " + when:
            while True:
                pass
        if self.what == b"sleep " + when:
            time.sleep(1000)
        if self.what == b"swell " + when:
            self.memory = bytearray(100 << 30)


real.SoundFile = SoundFile
faulthandler.dump_traceback_later(float(sys.argv[1]), exit=True)
