"""Train every forecaster of the textbook's comparison with several seeds, and print the table as Markdown.

    python tests/programs/compare_forecasters.py FOLDER SEEDS [section.key=value ...]

It exits with 1 if a median is more than 1.1 times the published figure, or below the noise: that would be a leak.
"""

import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from statistics import median
from typing import NamedTuple

import numpy as np

import wavegen
from wavegen.device import available_cores, processor_name
from wavegen.runs.run_folder import read_history
from wavegen.series.corpus import N_TRAIN, N_VALIDATION, make_sine_mixtures

NOISE = 0.1**2 / 12  # the variance of what nobody can forecast: 0.1 (u - 0.5), u uniform in [0, 1)
TOLERANCE = 1.1


class Row(NamedTuple):
    """A forecaster, the published error, and the positions of a series that it is of."""

    what: str
    preset: str
    published: float
    positions: str = "all"
    is_checked: bool = True


LAST_VALUE = 0.0212  # published
ROWS = [
    Row("linear, one ahead", "linear", 0.0038, "last"),
    Row("one recurrent unit, one ahead", "rnn-unit", 0.1480, "last", is_checked=False),
    Row("simple RNN, one ahead", "rnn", 0.0028, "last"),
    Row("simple RNN, ten ahead, trained at the last position", "rnn-last", 0.0106, "last"),
    Row("simple RNN, ten ahead", "rnn-all", 0.0288),
    Row("layer-normalized RNN, ten ahead", "rnn-norm", 0.0365),
    Row("LSTM, ten ahead", "lstm", 0.0276),
    Row("convolution and GRU, ten ahead", "conv-gru", 0.0212, "every second"),
    Row("WaveNet, ten ahead", "wavenet", 0.0224),
]


def train(preset, seed, folder, overrides):
    """Train a forecaster, and return its errors on the held-out series."""
    run = folder / f"{preset}-{seed}"
    config = wavegen.load_config(f"textbook/{preset}", [f"training.seed={seed}", "training.threads=1", *overrides])
    wavegen.train(config=config, run=run, device="cpu", notice=lambda text: None)
    return errors_of(run)


def errors_of(run):
    """Return the errors of a run's best epoch, as ``wavegen evaluate`` does, and the one of its last epoch."""
    forecaster = wavegen.load(run, device="cpu").forecaster
    first, *others = forecaster.score_series(forecaster.held_out_series())
    return {**sum(others, first).as_dict(), "last_epoch": read_history(run).validations[-1].loss}


def simplest():
    """Return the errors of the last value and of the best constant, one ahead at the last position."""
    waves = make_sine_mixtures(51)[: N_TRAIN + N_VALIDATION]
    held_out = waves[N_TRAIN:]
    constant = waves[:N_TRAIN, -1].mean()
    return np.square(held_out[:, -1] - held_out[:, -2]).mean(), np.square(held_out[:, -1] - constant).mean()


def main(folder, seeds, overrides):
    began, jobs = time.time(), [(row.preset, seed) for seed in range(seeds) for row in ROWS]
    with ProcessPoolExecutor(available_cores(), get_context("spawn")) as pool:
        futures = {job: pool.submit(train, *job, folder, overrides) for job in jobs}
        figures = {}
        for (preset, seed), future in futures.items():
            figures[preset, seed] = future.result()
            print(f"{preset}, seed {seed}: {future.result()['error']:.4f}", file=sys.stderr)
    last_value, constant = simplest()
    print("| squared error | at | wavegen | lowest to highest | last epoch | at the last | published |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    print(f"| last value, one ahead | last | {last_value:.4f} | | | | {LAST_VALUE:.4f} |")
    problems = []
    for what, preset, published, positions, is_checked in ROWS:
        of_row = [figures[preset, seed] for seed in range(seeds)]
        error, at_end, last = (median(each[key] for each in of_row) for key in ("error", "error_at_end", "last_epoch"))
        more = "" if is_checked else f" (the best constant: {constant:.4f})"
        spread = " to ".join(f"{end(each['error'] for each in of_row):.4f}" for end in (min, max))
        cells = [f"{error:.4f}{more}", spread, f"{last:.4f}", "" if positions == "last" else f"{at_end:.4f}"]
        print(f"| {what} | {positions} | {' | '.join(cells)} | {published:.4f} |")
        if is_checked and not NOISE < error <= TOLERANCE * published:
            problems.append(f"{preset}: expected {NOISE:.5f} to {TOLERANCE * published:.4f}, found {error:.4f}")
    minutes, of_cores = (seconds / 60 for seconds in (time.time() - began, sum(getrusage(RUSAGE_CHILDREN)[:2])))
    print(f"\nmedians of {seeds} seeds; {minutes:.0f} minutes, {of_cores:.0f} of a core's time, {processor_name()}")
    return problems


if __name__ == "__main__":
    sys.exit("\n".join(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])) or 0)
