"""The buffers and loops that measure the limits of a core."""

import subprocess
import sys

import pytest

from wavegen.bench import probes

MEASURE = """
from pathlib import Path
import numpy as np
from wavegen.bench.probes import written_buffer

def resident_pages():
    return int(Path("/proc/self/statm").read_text().split()[1])

before = resident_pages()
buffer = {allocate}
print((resident_pages() - before) * 4096 / buffer.nbytes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
@pytest.mark.parametrize(
    ("allocate", "share"), [("written_buffer(1 << 24)", 1.0), ("np.zeros(1 << 24, np.float32)", 0.0)]
)
def test_the_buffer_is_in_memory_before_it_is_timed(allocate, share):
    """In an interpreter of its own, without freed memory. Reading unwritten pages reads one page of zeros."""
    done = subprocess.run([sys.executable, "-c", MEASURE.format(allocate=allocate)], capture_output=True, check=True)
    assert float(done.stdout) == pytest.approx(share, abs=0.1)


def test_the_buffer_begins_at_a_cache_line():
    buffers = [probes.written_buffer(n) for n in (1, 100, 4096, 5000)]
    assert [buffer.ctypes.data % 64 for buffer in buffers] == [0] * 4
    assert [buffer.size for buffer in buffers] == [1, 100, 4096, 5000]


@pytest.mark.parametrize("n_registers", probes.READ_REGISTERS)
def test_a_loop_reads_the_whole_buffer(n_registers):
    turn = n_registers * probes.LANES
    buffer = probes.written_buffer(3 * turn)
    # lane 0 of the accumulators' sum: every LANES-th float
    assert probes._reader(n_registers)(buffer, 3, 2) == 2 * 3 * n_registers
