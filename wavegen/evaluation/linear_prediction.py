"""Adaptive linear prediction, the strongest trivial baseline."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from wavegen.audio.quantize import Quantizer

Classes = npt.NDArray[np.integer]
Floats = npt.NDArray[np.float64]

PIECE = 1 << 18  # samples processed at a time; a multiple of a fit's length

ORDER = 24  # coefficients of the linear prediction: 1.5 ms at 16 kHz
REFIT_EVERY = 256  # samples that one fit predicts
MEMORY = 1024  # samples of past that a fit sees
SCALE_RATES = (1 / 24, 1 / 200)  # of the two running averages of |residual|
SCALE_START = 0.02
UNIGRAM_SHARE = 0.005  # mixed into linear prediction: the far tail of a Laplace underflows to 0


def linear_prediction_bits(unigram: Floats, clip: Classes, quantizer: Quantizer) -> float:
    """Compute the total bits of a clip under adaptive linear prediction with a Laplace residual.

        P(c) = 0.995 (F(edges[c + 1]) - F(edges[c])) + 0.005 uni(c),   F the Laplace CDF around the prediction

    The Laplace's mean absolute value at t is the mean of two running averages of |residual| before t, + 1e-5.

    Args:
        unigram: (classes,) probability of each class.
        clip: (T,) integers in [0, classes).
        quantizer: what made the classes.
    """
    from scipy.signal import lfilter

    edges = quantizer.edges()
    averages = [np.array([SCALE_START]) for _ in SCALE_RATES]
    past = np.zeros(MEMORY)  # before the clip: silence
    bits = 0.0
    for start in range(0, clip.size, PIECE):
        values = np.asarray(clip[start : start + PIECE], dtype=np.int64)
        samples = np.concatenate([past, quantizer.decode(values).astype(np.float64)])
        prediction = _predict(samples, at_clip_start=start == 0)
        residual = np.abs(samples[MEMORY:] - prediction)
        scale = np.full(values.size, 1e-5)
        for i, rate in enumerate(SCALE_RATES):
            # s[t] = (1 - rate) s[t - 1] + rate |residual[t - 1]|: the filter's state is the next average
            running, averages[i] = lfilter([0.0, rate], [1.0, rate - 1.0], residual, zi=averages[i])
            scale += running / len(SCALE_RATES)
        mass = _laplace_mass((edges[values] - prediction) / scale, (edges[values + 1] - prediction) / scale)
        probability = (1 - UNIGRAM_SHARE) * mass + UNIGRAM_SHARE * unigram[values]
        bits -= float(np.log2(probability).sum())
        past = samples[-MEMORY:]
    return bits


def _predict(samples: Floats, at_clip_start: bool) -> Floats:
    """Predict every sample after the first ``MEMORY`` linearly from the ``ORDER`` before it.

        prediction[t] = sum over i of a[i] x[t - i],   sum over j of r[|i - j|] a[j] = r[i],   i, j = 1 ... 24

    the autocorrelation method (Makhoul, 1975, "Linear prediction: a tutorial review", section II). r is that
    of the last 1,024 samples before the fit under the rising half of a Hann window: the latest weigh most.
    r[0] * 1.0005 + 1e-7 keeps silence and pure tones solvable. A clip's first fit has only silence to go by:
    its 256 predictions are 0.9 x[t - 1].
    """
    n_samples = samples.size - MEMORY
    n_fits = -(-n_samples // REFIT_EVERY)
    padded = np.concatenate([samples, np.zeros(n_fits * REFIT_EVERY - n_samples)])

    taper = np.sin(np.pi * np.arange(MEMORY) / (2 * MEMORY)) ** 2
    starts = REFIT_EVERY * np.arange(n_fits)
    pasts = sliding_window_view(padded, MEMORY)[starts] * taper  # (fits, MEMORY)
    lags = np.arange(ORDER)
    r = np.stack([(pasts[:, lag:] * pasts[:, : MEMORY - lag]).sum(axis=1) for lag in range(ORDER + 1)], axis=1)
    r[:, 0] = r[:, 0] * 1.0005 + 1e-7
    toeplitz = r[:, np.abs(lags[:, None] - lags)]  # (fits, ORDER, ORDER)
    coefficients = np.linalg.solve(toeplitz, r[:, 1:, None])[:, :, 0]
    if at_clip_start:
        coefficients[0] = 0.0
        coefficients[0, 0] = 0.9

    prediction = np.zeros((n_fits, REFIT_EVERY))
    for i in range(ORDER):
        delayed = padded[MEMORY - 1 - i : padded.size - 1 - i].reshape(n_fits, REFIT_EVERY)
        prediction += coefficients[:, i, None] * delayed
    return prediction.reshape(-1)[:n_samples]


def _laplace_mass(lower: Floats, upper: Floats) -> Floats:
    """Compute the probability that a Laplace variable of mean absolute value 1 falls between two bounds.

    Differences of CDFs near 1 cancel, so an interval is first mirrored to the side where exp decays:

        lower >= 0:  exp(-lower) (1 - exp(lower - upper)) / 2      else:  1 - exp(lower) / 2 - exp(-upper) / 2
    """
    mirrored = lower + upper < 0
    near = np.where(mirrored, -upper, lower)
    far = np.where(mirrored, -lower, upper)
    within = np.exp(-np.maximum(near, 0.0)) * -np.expm1(near - far)
    across = -np.expm1(np.minimum(near, 0.0)) - np.expm1(-far)
    return 0.5 * np.where(near >= 0, within, across)
