"""Bits per sample: how well a model predicts audio that it has not heard."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from wavegen.audio.conditions import ClipCondition
from wavegen.device import one_thread_each, torch_threads
from wavegen.model.conditioning import Condition
from wavegen.model.network import Network
from wavegen.model.recurrent import Recurrent
from wavegen.model.wavenet import Stack, WaveNet

if TYPE_CHECKING:
    from torch import Tensor

CHUNK_TARGETS = 16384


def model_bits(
    model: Network,
    clips: Sequence[npt.NDArray[np.integer]],
    silence: int,
    heard: Callable[[int], None] | None = None,
    conditions: Sequence[ClipCondition | None] | None = None,
) -> list[float]:
    """The bits that coding each clip with the model's predictions would take.

        bits = - sum_t log2 p(x[t] | x[<t])

    Teacher-forced over whole clips from their start, before which there is silence; every sample counts once. On a
    CPU the stretches of all clips are spread over torch's threads, each computed by one of them.

    Args:
        model: in the precision to score in; evaluation uses float32.
        clips: (T,) classes each.
        silence: the class of silence.
        heard: called with the number of samples after each stretch.
        conditions: of a conditioned model: each clip's.

    Returns:
        Total bits of each clip; divided by its length they are its bits/sample.
    """
    import torch

    field, padding = model.receptive_field, model.padding(silence)
    model.eval()
    if isinstance(model, Recurrent):
        return [_remembering_bits(model, clip, padding, heard or _nobody) for clip in clips]
    jobs = [(i, begin) for i, clip in enumerate(clips) for begin in range(0, len(clip), CHUNK_TARGETS)]
    stacks: SimpleQueue[Stack | None] = SimpleQueue()
    for stack in _stacks(model, max(1, min(torch.get_num_threads(), len(jobs)))):
        stacks.put(stack)

    def nats(job: tuple[int, int]) -> tuple[float, int]:
        clip, begin = clips[job[0]], job[1]
        past = np.full(max(field - begin, 0), padding, dtype=np.int64)
        window = torch.from_numpy(np.concatenate([past, clip[max(begin - field, 0) : begin + CHUNK_TARGETS]]))
        seen = None if conditions is None else conditions[job[0]]
        condition = None
        if seen is not None:  # a step predicts the sample after its input
            stop = min(begin + CHUNK_TARGETS, len(clip))
            condition = Condition.of([seen.rows(begin - field + 1, stop)], next(model.parameters()).device)
        stack = stacks.get()
        try:
            return _nats(model, window, stack, condition), len(window) - field
        finally:
            stacks.put(stack)

    totals = [0.0] * len(clips)
    pool = one_thread_each(stacks.qsize(), "scoring")
    with torch_threads(1):  # for each stretch, even a single one: a clip's figure does not depend on its neighbours
        try:
            for (i, _), (loss, n_samples) in zip(jobs, pool.map(nats, jobs), strict=True):
                totals[i] += loss / math.log(2)
                if heard:
                    heard(n_samples)
        finally:
            pool.shutdown(cancel_futures=True)
    return totals


def _stacks(model: Network, n_threads: int) -> Sequence[Stack | None]:
    """A way to compute a WaveNet's blocks for each thread that scores; None for the network as it is."""
    import torch

    from wavegen.model.fused.stack import FusedStack

    if not isinstance(model, WaveNet):
        return [None] * n_threads
    weight = model.skip.weight
    if weight.device.type == "cpu" and weight.dtype == torch.float32:
        blocks, skip = model.residual_blocks, model.skip
        return [FusedStack(blocks, skip, torch.float32, forward_only=True) for _ in range(n_threads)]
    return [model.stack]


def _nats(model: Network, window: Tensor, stack: Stack | None, condition: Condition | None) -> float:
    """The sum of the losses of a window's targets, which come after a receptive field of past."""
    import torch

    window = window.to(next(model.parameters()).device)
    options = {} if stack is None else {"stack": stack}
    with torch.no_grad():
        parameters = model(window[None, :-1], condition, **options)[0]
        losses = model.distribution.loss(parameters, window[model.receptive_field :])
    return float(losses.double().sum())


def _remembering_bits(
    model: Recurrent, clip: npt.NDArray[np.integer], silence: int, heard: Callable[[int], None]
) -> float:
    """The bits of a clip under a network whose state goes on from its start."""
    import torch

    device, state, nats = next(model.parameters()).device, None, 0.0
    with torch.no_grad(), torch_threads(1):
        past = torch.full((1, model.receptive_field), silence, device=device)
        for begin in range(0, len(clip), CHUNK_TARGETS):
            targets = torch.from_numpy(clip[begin : begin + CHUNK_TARGETS].astype(np.int64)).to(device)
            inputs = torch.cat([past, targets[None, :-1]], dim=1)
            parameters, state = model.advance(inputs, state, past.shape[1] - 1)
            nats += float(model.distribution.loss(parameters[0], targets).double().sum())
            past = targets[None, -1:]
            heard(len(targets))
    return nats / math.log(2)


def _nobody(n_samples: int) -> None:
    """Tell nobody."""
