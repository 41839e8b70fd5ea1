"""Synthetic series: sums of two sines and noise, as a textbook on time series has them.

A. Géron, "Hands-On Machine Learning with Scikit-Learn, Keras, and TensorFlow", 2nd edition, 2019, chapter 15.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

N_TRAIN, N_VALIDATION, N_TEST = 7000, 2000, 1000
SEED = 20190905  # of these series alone: a training's seed leaves its data as they are


def make_sine_mixtures(n_points: int, n_series: int = N_TRAIN + N_VALIDATION + N_TEST) -> npt.NDArray[np.float64]:
    """Make the synthetic series, the same at every call.

        x(t) = 0.5 sin((t - o1) (10 f1 + 10)) + 0.2 sin((t - o2) (20 f2 + 20)) + 0.1 (u - 0.5)

    with f1, f2, o1 and o2 uniform in [0, 1) for each series, u for each point, and t from 0 to 1.

    Args:
        n_points: length of each series.
        n_series: how many of them.

    Returns:
        (n_series, n_points): those to train on, then those to validate on, then those to test on.
    """
    rng = np.random.Generator(np.random.Philox(SEED))
    f1, f2, o1, o2 = rng.random((4, n_series, 1))
    t = np.linspace(0.0, 1.0, n_points)
    waves = 0.5 * np.sin((t - o1) * (10 * f1 + 10)) + 0.2 * np.sin((t - o2) * (20 * f2 + 20))
    noise: npt.NDArray[np.float64] = 0.1 * (rng.random((n_series, n_points)) - 0.5)
    return np.asarray(waves + noise)
