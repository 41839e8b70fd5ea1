"""Forecasts: as far as the horizon, and further from the forecasts themselves."""

import numpy as np
import pytest
import torch

from wavegen.config import load_config
from wavegen.model.building import build_model
from wavegen.series.forecast import forecast

HORIZON = 4


def test_with_strides_the_newest_value_is_always_seen():
    """Whatever the number of values: the first one or none is left out."""
    torch.manual_seed(2)
    config = load_config("textbook/conv-gru", ["output.horizon=3"])
    network, plain = build_model(config), torch.nn.functional
    conv, first, second = network.layers
    values = np.random.default_rng(1).normal(size=41).astype(np.float32)
    known = torch.from_numpy(values)
    for _ in range(2):
        newest = known[len(known) % 2 :]  # four values and then two for each further position
        with torch.no_grad():
            h = plain.conv1d(newest[None, None], conv.weight.permute(1, 2, 0), conv.bias, stride=2)[0].T  # (n, 20)
            following = network.output(second.cell(first.cell(h)[0])[0][-1])
        known = torch.cat([known, following])
    assert forecast(network, values, 6) == pytest.approx(known[41:].numpy(), abs=1e-5)


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
