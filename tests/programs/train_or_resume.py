"""Begin a training with a configuration in a run folder, or go on with the one that is there; ends by its exit code."""

import signal
import sys
from pathlib import Path

import torch

from wavegen.config import load_config
from wavegen.runs.run_folder import RunFolder
from wavegen.training.process_group import Group
from wavegen.training.progress import Interrupted
from wavegen.training.start import resume_run, start_run


def ignore(text):
    pass


signal.signal(signal.SIGINT, signal.SIG_DFL)  # before the training listens, it just dies
config, folder, run = sys.argv[1], sys.argv[2], RunFolder(Path(sys.argv[3]))
group = Group(device=torch.device("cpu"))
if run.step_checkpoints():
    trainer = resume_run(run, lambda frozen: frozen, False, group, ignore)
else:
    trainer = start_run(load_config(config, [f"data.folder={folder}"]), run, group, ignore)
try:
    trainer.fit()
except Interrupted as stop:
    sys.exit(stop.exit_code)
