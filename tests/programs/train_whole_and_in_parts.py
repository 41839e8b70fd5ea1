"""Train twice as one of several processes: 12 steps at once, and 6 steps that are resumed until there are 12."""

import json
import sys
from pathlib import Path

from wavegen.config import load_config, override
from wavegen.runs.run_folder import RunFolder
from wavegen.training.process_group import process_group
from wavegen.training.start import resume_run, start_run


def ignore(text):
    pass


overrides, folder, out = json.loads(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
config = load_config("small", [*overrides, f"data.folder={folder}"])
with process_group("cpu") as group:
    for name, steps in (("whole", 12), ("stopped", 6)):
        wanted = config.with_values("training", steps=steps)
        start_run(wanted, RunFolder(out / name), group, ignore).fit()
    resumed = resume_run(
        RunFolder(out / "stopped"), lambda frozen: override(frozen, ["training.steps=12"]), False, group, ignore
    )
    resumed.fit()
