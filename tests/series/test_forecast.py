"""Forecasts: as far as the horizon, and further from the forecasts themselves."""

import numpy as np
import pytest
import torch

from wavegen.config import load_config
from wavegen.model.building import build_model
from wavegen.series.forecast import forecast

HORIZON = 4


@pytest.mark.parametrize("kind", ["stack", "gru", "lstm", "wavenet"])
@pytest.mark.parametrize("length", [1, 3, 60])
def test_beyond_the_horizon_forecasts_count_as_known(kind, length):
    torch.manual_seed(2)
    small = ["model.dilation_cycle=3"] if kind == "wavenet" else ["model.context=9"] if kind != "stack" else []
    network = build_model(load_config("book-simple", [f"model.kind={kind}", f"output.horizon={HORIZON}", *small]))
    values = np.random.default_rng(1).normal(size=length).astype(np.float32)
    before = np.full(network.receptive_field - 1, np.nan if kind == "stack" else 0.0, dtype=np.float32)
    known = np.concatenate([before, values])
    expected = np.empty(0, dtype=np.float32)
    for _ in range(3):
        with torch.no_grad():
            news = network(torch.from_numpy(known)[None])[0, -1].numpy()
        known, expected = np.concatenate([known, news]), np.concatenate([expected, news])
    for steps in (1, HORIZON, HORIZON + 1, 3 * HORIZON):
        made = forecast(network, values, steps)
        assert made.shape == (steps,)
        assert made == pytest.approx(expected[:steps], abs=1e-5)
