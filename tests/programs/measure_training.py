"""Time a few training steps, as ``python -m wavegen.bench.training`` does."""

import runpy

from wavegen.bench import training

runpy.run_path(training.__file__, run_name="__main__")
