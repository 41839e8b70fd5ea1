"""Errors of forecasts and the trivial baselines, against plain loops."""

import numpy as np
import pytest
import torch

from wavegen.config import load_config
from wavegen.errors import DataError
from wavegen.evaluation.scores import ABSOLUTE_ERROR, BITS, SQUARED_ERROR, loss_unit_in, loss_unit_of
from wavegen.model.building import build_model
from wavegen.series import forecast as forecast_module
from wavegen.series import scores
from wavegen.series.corpus import build_normalization
from wavegen.series.forecast import model_errors
from wavegen.series.scores import (
    Errors,
    ScoredSeries,
    Targets,
    all_series,
    baseline_errors,
    build_targets,
    fit_linear_forecast,
    score_series,
)

HORIZON = 3
KINDS = ("stack", "gru", "lstm", "wavenet", "strided")


def network_of(kind, *overrides):
    """A small network of a kind with strong random weights."""
    shapes = {
        "stack": ["model.layers=[{kind: conv, channels: 5, activation: tanh}, {kind: conv, channels: 4, dilation: 2}]"],
        "wavenet": ["model.cycles=1", "model.dilation_cycle=2", "model.residual_channels=4", "model.head_channels=8"],
    }
    recurrent = ["model.recurrent_channels=6", "model.context=5"]
    if kind == "strided":
        layers = "{kind: conv, channels: 5, kernel_size: 3, stride: 2}, {kind: gru, channels: 4}"
        kind, recurrent = "stack", []
        shapes["stack"] = [f"model.layers=[{layers}]", "model.context=1", "series.windows=aligned"]
    chosen = [f"model.kind={kind}", *shapes.get(kind, recurrent), f"output.horizon={HORIZON}", *overrides]
    torch.manual_seed(1)
    model = build_model(load_config("book-simple", chosen))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    return model.eval()


def some_series(lengths):
    rng = np.random.default_rng(3)
    return [np.cumsum(rng.normal(size=length)) for length in lengths]


@pytest.mark.parametrize("error", ["squared", "absolute"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [65536, 24])
def test_a_networks_errors_are_those_of_a_plain_loop(kind, error, rows, monkeypatch):
    monkeypatch.setattr(forecast_module, "ROWS", rows)  # few rows: in groups and stretches, with a state carried along
    network = network_of(kind)
    before = float("nan") if kind == "stack" else 0.0
    n_before, positions = network.padding_steps, range(*network.positions.indices(100))
    assert n_before == (0 if kind == "strided" else network.receptive_field - 1)
    assert list(positions)[:2] == ([2, 4] if kind == "strided" else [0, 1])
    all_values = [values.astype(np.float32) for values in some_series([12, 6, 30, 12, 12])]
    counted, targets = [], Targets(HORIZON, error, network.positions)
    found = model_errors(network, all_values, targets, counted.append)
    assert sum(counted) == sum(errors.n_positions for errors in found)
    last = model_errors(network, all_values, targets._replace(only_last=True))
    assert [each.by_horizon.tolist() for each in last] == [each.at_end.tolist() for each in found]
    assert {each.n_positions for each in last} == {1}
    for values, errors in zip(all_values, found, strict=True):
        expected = []
        for p in (p for p in positions if p < len(values) - HORIZON):
            known = np.concatenate([np.full(n_before, before, np.float32), values[: p + 1]])
            with torch.no_grad():
                forecast = network(torch.from_numpy(known)[None])[0, -1].numpy()
            difference = forecast - values[p + 1 : p + 1 + HORIZON]
            expected.append(difference**2 if error == "squared" else np.abs(difference))
        expected = np.array(expected)
        assert errors.n_positions == len(expected)
        assert errors.by_horizon == pytest.approx(expected.sum(axis=0), rel=1e-4)
        assert errors.mean == pytest.approx(expected.mean(), rel=1e-4)
        assert errors.at_end == pytest.approx(expected[-1], rel=1e-4)


def test_the_last_value_is_the_forecast_of_who_knows_nothing():
    (values,) = some_series([20])
    errors = baseline_errors(None, values, Targets(HORIZON))
    assert errors.keys() == {"last value"}
    expected = [[(values[p] - values[p + h]) ** 2 for h in (1, 2, 3)] for p in range(17)]
    assert errors["last value"].by_horizon == pytest.approx(np.sum(expected, axis=0))
    assert errors["last value"].at_end == pytest.approx(expected[-1])


@pytest.mark.parametrize("lengths", [[12, 9, 12, 30, 5], [4, 4], [200]])
@pytest.mark.parametrize("taps", [1, 4, 50])
def test_the_linear_forecast_is_least_squares_over_what_each_position_has_seen(lengths, taps, monkeypatch):
    monkeypatch.setattr(scores, "TAPS", taps)
    monkeypatch.setattr(scores, "ROWS", 7)
    train = some_series(lengths)
    linear = fit_linear_forecast(train, HORIZON)
    most = min(taps, max(lengths) - HORIZON)
    (held_out,) = some_series([15])
    forecasts = linear.forecasts(held_out)
    for p in range(15 - HORIZON):
        k = min(p + 1, most)
        rows, targets = [], []
        for values in train:
            for q in range(k - 1, len(values) - HORIZON):
                rows.append([*values[q - k + 1 : q + 1], 1.0])
                targets.append(values[q + 1 : q + 1 + HORIZON])
        if len(rows) < 2 * k + 2:
            continue  # many maps suit so few positions equally
        weights = np.linalg.lstsq(np.array(rows), np.array(targets), rcond=None)[0]
        expected = np.array([*held_out[p - k + 1 : p + 1], 1.0]) @ weights
        assert forecasts[p] == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    "targets", [Targets(HORIZON, only_last=True), Targets(HORIZON, positions=slice(3, None, 2))], ids=str
)
def test_baselines_are_scored_where_the_model_is(targets):
    train, (values,) = some_series([30, 25, 28]), some_series([20])
    linear = fit_linear_forecast(train, HORIZON)
    scored = baseline_errors(linear, values, targets)
    for name, forecasts in (("last value", values[:17, None]), ("linear", linear.forecasts(values))):
        each = np.square(forecasts - np.stack([values[p + 1 : p + 1 + HORIZON] for p in range(17)]))
        where = [16] if targets.only_last else [3, 5, 7, 9, 11, 13, 15]
        assert scored[name].by_horizon == pytest.approx(each[where].sum(axis=0))
        assert scored[name].n_positions == len(where)


def test_a_straight_line_is_forecast_exactly():
    line = 1e5 + 3.0 * np.arange(100.0)
    linear = fit_linear_forecast([line[:60]], HORIZON)
    errors = baseline_errors(linear, line[60:], Targets(HORIZON, "absolute"))
    assert errors["linear"].mean == pytest.approx(0.0, abs=1e-4)
    assert errors["last value"].by_horizon / errors["last value"].n_positions == pytest.approx([3.0, 6.0, 9.0])


def test_without_a_position_there_is_nothing_to_fit():
    with pytest.raises(DataError, match="expected training series"):
        fit_linear_forecast([np.arange(3.0)], HORIZON)


def test_together_every_position_counts_the_same():
    values = some_series([10, 25, 4])
    named = [ScoredSeries(f"{i}", each) for i, each in enumerate(values)]
    errors = [Errors.of(np.full((len(each) - HORIZON, HORIZON), 1.0 + i)) for i, each in enumerate(values)]
    scored = score_series(named, errors, None, Targets(HORIZON))
    everything = all_series(scored).as_dict()
    assert everything["positions"] == 7 + 22 + 1
    assert everything["error"] == pytest.approx((7 * 1 + 22 * 2 + 1 * 3) / 30)
    assert everything["by_horizon"] == pytest.approx([everything["error"]] * HORIZON)
    assert everything["next_value_at_end"] == everything["error_at_end"] == pytest.approx((1 + 2 + 3) / 3)
    last = everything["baselines"]["last value"]
    changes = np.concatenate([np.diff(each[: 1 - HORIZON]) for each in values])
    assert last["next_value"] == pytest.approx(np.mean(changes**2))
    with pytest.raises(DataError, match="expected series to score"):
        all_series([])


def test_figures_are_named_for_what_they_are():
    series = ["series.scale=3.0", "series.offset=0.0"]
    squared, absolute = (load_config("book-simple", [*series, f"output.error={e}"]) for e in ("squared", "absolute"))
    assert (loss_unit_of(load_config("small")), loss_unit_of(squared), loss_unit_of(absolute)) == (
        BITS,
        SQUARED_ERROR,
        ABSOLUTE_ERROR,
    )
    normalization = build_normalization(squared)
    assert [normalization.error_scale(build_targets(each).error) for each in (squared, absolute)] == [9.0, 3.0]
    for loss_unit in (BITS, SQUARED_ERROR, ABSOLUTE_ERROR):
        assert loss_unit_in({"step": 1, "train_loss": 0.5, "loss_unit": loss_unit.name}) == loss_unit
