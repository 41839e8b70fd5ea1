"""The output distribution: its loss, and how one uniform number becomes one sample."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from wavegen.model.truncation import Truncation


def softmax_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The negative log-likelihood of each target.

        -log softmax(logits)[target]

    Args:
        logits: (..., classes), any float type; the sum is taken in float32 or better.
        targets: (...) integer classes.

    Returns:
        (...) nats.
    """
    flat = logits.reshape(-1, logits.shape[-1])
    flat = flat if flat.dtype == torch.float64 else flat.float()
    return F.cross_entropy(flat, targets.reshape(-1), reduction="none").view(targets.shape)


def softmax_draw(logits: Tensor, uniforms: Tensor, truncation: Truncation) -> Tensor:
    """Draw by inverting the cumulative distribution, in class order.

    The first class whose cumulative probability exceeds the uniform number; a uniform number beyond the last kept
    class's takes that class.

    Args:
        logits: (B, classes) finite.
        uniforms: (B,) float64 in [0, 1).
        truncation: what is done to the distribution first.

    Returns:
        (B,) int64 classes.
    """
    if truncation.temperature == 0:
        return logits.argmax(dim=-1)
    # the difference first: then the smallest temperature gives -inf, and not inf - inf
    scaled = (logits.double() - logits.double().amax(dim=-1, keepdim=True)) / truncation.temperature
    if truncation.top_k is not None or truncation.top_p is not None:
        scaled = scaled.masked_fill(~_kept(scaled, truncation), float("-inf"))
    cdf = scaled.exp().cumsum(dim=-1)  # (B, classes), not normalized
    total = cdf[:, -1:]
    drawn = torch.searchsorted(cdf, uniforms[:, None] * total, right=True)
    last_kept = (cdf < total).sum(dim=-1)
    return torch.minimum(drawn[:, 0], last_kept)


def _kept(scaled: Tensor, truncation: Truncation) -> Tensor:
    """Which classes top-k, then top-p leave: (B, classes) bool."""
    order = scaled.argsort(dim=-1, descending=True, stable=True)
    ranked = scaled.gather(-1, order)
    keep = torch.ones_like(ranked, dtype=torch.bool)
    if truncation.top_k is not None:
        keep[:, truncation.top_k :] = False
    if truncation.top_p is not None:
        p = ranked.masked_fill(~keep, float("-inf")).softmax(dim=-1)
        keep &= p.cumsum(dim=-1) - p < truncation.top_p
    return torch.zeros_like(keep).scatter(-1, order, keep)
