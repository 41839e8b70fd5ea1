"""Train twice as one of several processes: 12 steps at once, and 6 steps that are resumed until there are 12."""

import json
import sys
from pathlib import Path

from wavegen.config import load_config, override
from wavegen.training import launch
from wavegen.training.meeting import joined
from wavegen.training.run_folder import RunFolder


def ignore(text):
    pass


overrides, folder, out = json.loads(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
config = load_config("small", [*overrides, f"data.folder={folder}"])
with joined("cpu") as group:
    for name, steps in (("whole", 12), ("stopped", 6)):
        wanted = config.with_values("training", steps=steps)
        launch.new_run(wanted, RunFolder(out / name), group, [], ignore).fit()
    resumed = launch.resume(
        RunFolder(out / "stopped"), lambda frozen: override(frozen, ["training.steps=12"]), False, group, [], ignore
    )
    resumed.fit()
