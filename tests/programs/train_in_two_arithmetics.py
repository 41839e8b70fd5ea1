"""Train as one of several processes, exactly as ``start_run`` begins a training, but in the given arithmetic."""

import json
import sys
from pathlib import Path

import numpy as np
import torch

from wavegen.config import load_config
from wavegen.model.building import build_model
from wavegen.runs.run_folder import RunFolder
from wavegen.training.plan import resolve_plan
from wavegen.training.process_group import process_group
from wavegen.training.task import task_type
from wavegen.training.trainer import Trainer

overrides, folder, out = json.loads(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
with process_group("cpu") as group:
    for backend, dtype in (("torch", torch.float64), ("fused", torch.float32)):
        config = load_config("small", [*overrides, f"training.backend={backend}", f"data.folder={folder}"])
        config = config.with_values("training", accumulation=2)
        torch.manual_seed(0)
        model = build_model(config).to(dtype)
        corpus, run = task_type(config).read_corpus(config), RunFolder(out / backend)
        if group.is_main:
            run.create(config.to_yaml())
        plan = resolve_plan(config, corpus, group.device, print, group)
        trainer = Trainer(plan, corpus, model, run, group)
        trainer.fit()
        if group.is_main:
            np.savez(out / f"{backend}.npz", **{n: p.detach().numpy() for n, p in model.named_parameters()})
