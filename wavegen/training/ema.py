"""The running average of the weights that validation, auditions and everything after training use."""

from __future__ import annotations

import torch

from wavegen.model.network import Network


@torch.no_grad()
def update_ema(average: Network, model: Network, decay: float, updates: int) -> None:
    """Move the averaged weights towards the trained ones.

        average[n] = sum_i decay^(n-i) w[i] / sum_i decay^(n-i)        (bias-corrected, as Adam's moments:
                                                                        Kingma and Ba, 2015, section 3)

    Args:
        average: moved in place.
        model: the trained weights after this update.
        decay: of the weights' age, in updates.
        updates: n, counted from 1.
    """
    share = (1.0 - decay) / (1.0 - decay**updates) if decay > 0 else 1.0
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), share)
