import os
import subprocess
import sys
import time

import pytest

LOAD = "from wavegen.audio.librosa_loading import load_librosa; load_librosa()"
USE = (
    "import numpy, librosa; librosa.onset.onset_detect(y=numpy.random.default_rng(0).standard_normal(16000), sr=16000)"
)


@pytest.mark.slow
@pytest.mark.parametrize("seconds_between", [1.5, 2.5])
def test_processes_that_load_it_for_the_first_time_leave_a_whole_cache(tmp_path, seconds_between):
    """Without the lock the last call ends in a segmentation fault, on a machine that compiles for some seconds."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    processes = []
    for _ in range(3):
        processes.append(subprocess.Popen([sys.executable, "-c", LOAD], env=environment))
        time.sleep(seconds_between)
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert any(tmp_path.rglob("*peak_pick*"))
    assert subprocess.run([sys.executable, "-c", USE], env=environment, check=False).returncode == 0
