"""What the limits of a core are measured on."""

import sys
from pathlib import Path

import numpy as np
import pytest

from wavegen.bench import probes

PAGE_BYTES, N_FLOATS = 4096, 1 << 24  # 64 MiB


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
@pytest.mark.parametrize(
    ("allocate", "is_written"), [(probes.written_buffer, True), (lambda n: np.zeros(n, np.float32), False)]
)
def test_the_buffer_is_in_memory_before_it_is_timed(allocate, is_written):
    """Reading pages that were never written reads one page of zeros."""
    before = resident_bytes()
    buffer = allocate(N_FLOATS)
    grown = resident_bytes() - before
    assert (grown > 0.9 * buffer.nbytes) == is_written
    assert (grown < 0.1 * buffer.nbytes) != is_written


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
