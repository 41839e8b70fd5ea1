"""The benchmark: the ways of training that it measures, the buffers and loops that measure the limits of a core."""

import subprocess
import sys

import numpy as np
import pytest

from wavegen import bench

MEASURE = """
from pathlib import Path
import numpy as np
from wavegen.bench import written_buffer

def resident_pages():
    return int(Path("/proc/self/statm").read_text().split()[1])

before = resident_pages()
buffer = {allocate}
print((resident_pages() - before) * 4096 / buffer.nbytes)
"""


def test_one_thread_is_measured_and_all():
    assert {threads for _, _, threads, _ in bench.ways_to_train(True, 1)} == {1}
    assert {threads for _, _, threads, _ in bench.ways_to_train(True, 4)} == {1, 4}


def test_what_is_made_for_wavenets_is_not_measured_of_others():
    assert list(bench.ways_to_train(False, 2)) == [("torch", "float32", 1, False), ("torch", "float32", 2, False)]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
@pytest.mark.parametrize(
    ("allocate", "share"), [("written_buffer(1 << 24)", 1.0), ("np.zeros(1 << 24, np.float32)", 0.0)]
)
def test_the_buffer_is_in_memory_before_it_is_timed(allocate, share):
    """In an interpreter of its own, without freed memory. Reading unwritten pages reads one page of zeros."""
    done = subprocess.run([sys.executable, "-c", MEASURE.format(allocate=allocate)], capture_output=True, check=True)
    assert float(done.stdout) == pytest.approx(share, abs=0.1)


def test_the_buffer_begins_at_a_cache_line():
    buffers = [bench.written_buffer(n) for n in (1, 100, 4096, 5000)]
    assert [buffer.ctypes.data % 64 for buffer in buffers] == [0] * 4
    assert [buffer.size for buffer in buffers] == [1, 100, 4096, 5000]


def test_the_loop_reads_the_whole_buffer():
    rows, total = np.ones((3, bench.REGISTERS * bench.LANES), np.float32), np.zeros((1, bench.LANES), np.float32)
    bench._read(rows, 2, total)
    assert total.sum() == 2 * rows.size


def test_every_register_multiplies_and_adds():
    total = np.zeros((1, bench.LANES), np.float32)
    bench._multiply_add(2, total)  # 0 / 2 + 1 = 1, 1 / 2 + 1 = 1.5
    assert (total == 1.5 * bench.REGISTERS).all()
