"""Check the fused engine, compiled for the processor in numba's environment, which has vectors of argv[1] lanes."""

import sys

import numpy as np
import torch

from wavegen.config import load_config
from wavegen.model.building import build_model, load_weights
from wavegen.sampling.engines import build_engine
from wavegen.sampling.engines.packing import rounded_weights
from wavegen.simd import LANES

assert int(sys.argv[1]) == LANES, LANES
torch.manual_seed(0)
model = build_model(load_config("small", ["model.dilation_cycle=4", "model.residual_channels=20"])).eval()
torch.nn.init.normal_(model.output.weight, std=0.3)
past = np.random.default_rng(0).integers(0, 256, (5, model.receptive_field))
classes = np.random.default_rng(1).integers(0, 256, (5, 30))
for precision, tolerance in (("float32", 1e-4), ("int8", 2e-3)):
    engine = build_engine("numba", model, precision)
    exact = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    load_weights(model, {name: array.copy() for name, array in rounded_weights(exact, precision).items()})
    engine.start(past)
    with torch.no_grad():
        expected = model(torch.from_numpy(np.concatenate([past, classes], axis=1)[:, :-1])).numpy()
    assert np.abs(engine.force(classes) - expected).max() < tolerance, precision
