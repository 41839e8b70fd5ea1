"""Which of a block's outputs a training step leaves out (dropout: Srivastava et al., 2014)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from wavegen.model.layers import Dropped
from wavegen.model.network import Network

LEVELS = 1 << 16  # a draw is one of so many: the rate is met to within 1/131,072


@dataclass(frozen=True)
class Dropout:
    """What is left out of each window: a pure function of (seed, item), so that slices and processes change nothing.

    Args:
        seed: of the training.
        rate: the share that is left out; what stays is divided by the share that stays.
    """

    seed: int
    rate: float

    def of_items(self, model: Network, items: Sequence[int], n_steps: int, device: torch.device) -> Dropped:
        """What is left out of some windows.

        Args:
            model: whose blocks' outputs it is.
            items: the windows' numbers in the training stream.
            n_steps: of each window's input.
            device: of the model.

        Returns:
            A mask for each block, in its output's time-major rows.
        """
        threshold = round(self.rate * LEVELS)
        masks = [np.empty((n, len(items), channels), np.bool_) for n, channels in model.dropout_shapes(n_steps)]
        for column, item in enumerate(items):
            # a key of its own: epochs are shuffled by (seed, number) without one
            sequence = np.random.SeedSequence(self.seed, spawn_key=(item,))
            random = np.random.Generator(np.random.Philox(sequence))
            for mask in masks:
                draws = random.integers(LEVELS, size=(len(mask), mask.shape[2]), dtype=np.uint16)
                mask[:, column] = draws >= threshold
        kept = [torch.from_numpy(mask).flatten(0, 1).to(device, non_blocking=True) for mask in masks]
        return Dropped(kept, LEVELS / (LEVELS - threshold))
