"""Training and sampling speeds of a preset on a GPU, printed as JSON lines: what, how, precision, batch, a second.

Part of ``check.py``. Eager steps, launched one by one, are the baseline of captured ones.
"""

import json
import sys
import time

import torch

from wavegen.bench import _generation_speed
from wavegen.config import load_config
from wavegen.model.building import build_model
from wavegen.training.compute import Compute, precisions_of
from wavegen.training.plan import Trial
from wavegen.training.step import Step

SECONDS = float(sys.argv[2])  # for all; what does not fit is left out
BATCHES = ((8, 2048), (16, 8192))  # windows, targets
preset, device, began = sys.argv[1], torch.device("cuda"), time.monotonic()
best = precisions_of(device)[-1]


def show(what, how, precision, batch, rate):
    print(json.dumps([preset, what, how, precision, batch, rate()]), flush=True)


def train(backend, precision, windows, targets, captured=True):
    config = load_config(preset, [f"training.window_targets={targets}"])
    trial = Trial(config, Compute(backend, precision, 1, windows, 1, False), device)
    if not captured:
        backend = torch_backend(config, trial)
        trial._steps[precision] = Step(trial.model, backend, config.training)
        trial.step_seconds(precision, 1)
    return trial.n_targets / trial.step_seconds(precision, 4)


def torch_backend(config, trial):
    from wavegen.training.backends import build_backend

    return build_backend(config, trial.compute, trial.model)


def sample(engine, precision, clips):
    config = load_config(preset)
    model = build_model(config)
    torch.nn.init.normal_(model.output.weight, std=0.1)
    return _generation_speed(config, model.to(device).eval(), engine, precision, clips, 1)


def measurements():
    sampled = "float32" if best == "float16" else "bfloat16"
    for clips in (2112, 512, 32):
        yield "sample", "triton", sampled, clips, lambda clips=clips: sample("triton", sampled, clips)
    yield "sample", "torch", "float32", 32, lambda: sample("torch", "float32", 32)
    for windows, targets in BATCHES:
        size = windows * targets
        for how, captured in (("torch, eager", False), ("torch, captured", True)):
            yield "train", how, best, size, lambda w=windows, t=targets, c=captured: train("torch", best, w, t, c)
    for windows, targets in reversed(BATCHES):
        size = windows * targets
        yield "train", "compiled, captured", best, size, lambda w=windows, t=targets: train("compile", best, w, t)


for *row, rate in measurements():
    if time.monotonic() - began > SECONDS:
        break
    try:
        show(*row, rate)
    except Exception as error:  # one that fails says so, the others are measured
        print(preset, *row, type(error).__name__, str(error)[:300], file=sys.stderr, flush=True)
