"""Bits per sample: how well a model predicts audio that it was not trained on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from queue import SimpleQueue

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wavegen.data.conditioning import ClipCondition
from wavegen.device import one_thread_each, torch_threads
from wavegen.model.layers import Condition
from wavegen.model.network import Forward, Network, State

CHUNK_TARGETS = 16384


def model_bits(
    model: Network,
    clips: Sequence[npt.NDArray[np.integer]],
    silence: int,
    scored: Callable[[int], None] | None = None,
    conditions: Sequence[ClipCondition | None] | None = None,
    past: npt.NDArray[np.integer] | None = None,
) -> list[float]:
    """Compute the bits that coding each clip with the model's predictions would take.

        bits = - sum_t log2 p(x[t] | x[<t])

    Teacher-forced over whole clips from their start, before which there is silence; every sample counts once. On a
    CPU the stretches of all clips are spread over torch's threads, each computed by one of them.

    Args:
        model: in the precision to score in; evaluation uses float32.
        clips: (T,) classes each.
        silence: the class of silence.
        scored: called with the number of samples after each stretch.
        conditions: of a conditioned model: each clip's.
        past: (T,) classes that came before every clip, as a prime does; what is behind them, and nothing by default, is
            silence.

    Returns:
        Total bits of each clip; divided by its length they are its bits/sample.
    """
    field = model.receptive_field
    before = np.full(field, model.padding(silence), dtype=np.int64)
    if past is not None:
        before = np.concatenate([before, past])
    model.eval()
    if model.has_memory:
        return _recurrent_bits(model, clips, before, scored)
    before = before[-field:]
    jobs = [(i, begin) for i, clip in enumerate(clips) for begin in range(0, len(clip), CHUNK_TARGETS)]
    scorers: SimpleQueue[Forward] = SimpleQueue()
    for scorer in model.scorers(max(1, min(torch.get_num_threads(), len(jobs)))):
        scorers.put(scorer)

    def nats(job: tuple[int, int]) -> tuple[float, int]:
        clip, begin = clips[job[0]], job[1]
        inputs_of_clip = clip[max(begin - field, 0) : begin + CHUNK_TARGETS]
        window = torch.from_numpy(np.concatenate([before[min(begin, field) :], inputs_of_clip]))
        seen = None if conditions is None else conditions[job[0]]
        condition = None
        if seen is not None:  # a step predicts the sample after its input
            stop = min(begin + CHUNK_TARGETS, len(clip))
            condition = Condition.of([seen.rows(begin - field + 1, stop)], next(model.parameters()).device)
        scorer = scorers.get()
        try:
            return _nats(model, scorer, window, condition), len(window) - field
        finally:
            scorers.put(scorer)

    totals = [0.0] * len(clips)
    # one thread for each stretch, even a single one: a clip's figure does not depend on its neighbours
    with torch_threads(1), one_thread_each(scorers.qsize(), "scoring") as pool:
        for (i, _), (loss, n_samples) in zip(jobs, pool.map(nats, jobs), strict=True):
            totals[i] += loss / math.log(2)
            if scored:
                scored(n_samples)
    return totals


def _nats(model: Network, scorer: Forward, window: Tensor, condition: Condition | None) -> float:
    """Sum the losses of a window's targets, in nats; a receptive field of past precedes them."""
    window = window.to(next(model.parameters()).device)
    with torch.no_grad():
        parameters = scorer(window[None, :-1], condition)[0]
        losses = model.distribution.loss(parameters, window[model.receptive_field :])
    return float(losses.double().sum())


def _recurrent_bits(
    model: Network,
    clips: Sequence[npt.NDArray[np.integer]],
    before: npt.NDArray[np.int64],
    scored: Callable[[int], None] | None,
) -> list[float]:
    """Compute each clip's bits under a network with a state, which is carried from a chunk of a clip to the next."""
    device = next(model.parameters()).device

    def bits(clip: npt.NDArray[np.integer]) -> float:
        past, nats = torch.from_numpy(before).to(device), 0.0
        state: State | None = None
        for begin in range(0, len(clip), CHUNK_TARGETS):
            targets = torch.from_numpy(clip[begin : begin + CHUNK_TARGETS].astype(np.int64)).to(device)
            with torch.no_grad():
                parameters, state = model.advance(torch.cat([past, targets[:-1]])[None], state)
                # (1, T + n, n_parameters): the first T predict samples of the past, which are not scored
                losses = model.distribution.loss(parameters[0, parameters.shape[1] - len(targets) :], targets)
            past, nats = targets[-1:], nats + float(losses.double().sum())
        return nats / math.log(2)

    totals = []
    with one_thread_each(torch.get_num_threads() if device.type == "cpu" else 1, "scoring") as pool:
        for clip, total in zip(clips, pool.map(bits, clips), strict=True):
            totals.append(total)
            if scored:
                scored(len(clip))
    return totals
