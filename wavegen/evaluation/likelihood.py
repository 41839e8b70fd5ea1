"""Bits per sample: how well a model predicts audio that it has not heard."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from wavegen.model.outputs import softmax_loss
from wavegen.model.wavenet import WaveNet

CHUNK_TARGETS = 16384


def model_bits(
    model: WaveNet,
    clips: Sequence[npt.NDArray[np.integer]],
    silence: int,
    heard: Callable[[int], None] | None = None,
) -> list[float]:
    """The bits that coding each clip with the model's predictions would take.

        bits = - sum_t log2 p(x[t] | x[<t])

    Teacher-forced over whole clips from their start, before which there is silence; every sample counts once.

    Args:
        model: in the precision to score in; evaluation uses float32.
        clips: (T,) classes each.
        silence: the class before a clip's start.
        heard: called with the number of samples after each stretch.

    Returns:
        Total bits of each clip; divided by its length they are its bits/sample.
    """
    import torch

    device = next(model.parameters()).device
    field = model.receptive_field
    model.eval()
    totals = []
    for clip in clips:
        padded = np.concatenate([np.full(field, silence, dtype=np.int64), clip.astype(np.int64)])
        nats = 0.0
        for begin in range(0, len(clip), CHUNK_TARGETS):
            window = torch.from_numpy(padded[begin : begin + CHUNK_TARGETS + field]).to(device)
            with torch.inference_mode():
                losses = softmax_loss(model(window[None, :-1])[0], window[field:])
                nats += float(losses.double().sum())
            if heard:
                heard(len(losses))
        totals.append(nats / math.log(2))
    return totals
