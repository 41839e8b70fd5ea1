"""Time a few training steps, as ``python -m wavegen.bench`` does."""

import runpy

from wavegen import bench

runpy.run_path(bench.__file__, run_name="__main__")
