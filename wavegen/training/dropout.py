"""Dropout of the blocks' outputs, as a function of the seed and the window (Srivastava et al., 2014)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wavegen.model.layers import Dropped
from wavegen.model.network import Network

LEVELS = 1 << 16  # of a draw, 2 bytes: the rate is met to within 1/131,072


@dataclass(frozen=True)
class Dropout:
    """The masks of each window: a pure function of (seed, item), so that slices, ranks and resuming change nothing.

        z <- z mask / (1 - rate),   mask ~ Bernoulli(1 - rate)        for each step and channel of each block's output z

    Args:
        seed: of the training.
        rate: the share of zeros.
    """

    seed: int
    rate: float

    def of_items(self, model: Network, items: Sequence[int], n_steps: int, device: torch.device) -> Dropped:
        """Draw the masks of some windows.

        Args:
            model: whose blocks' outputs are masked.
            items: the windows' numbers in the training stream.
            n_steps: of each window's input.
            device: of the model.

        Returns:
            A mask for each block, in its output's time-major rows.
        """
        threshold = round(self.rate * LEVELS)
        scale = LEVELS / (LEVELS - threshold)
        if device.type != "cpu":
            return Dropped(self._drawn_by_torch(model.dropout_shapes(n_steps), items, threshold, device), scale)
        masks = [np.empty((n, len(items), channels), np.bool_) for n, channels in model.dropout_shapes(n_steps)]
        for column, item in enumerate(items):
            random = np.random.Generator(np.random.Philox(self._sequence(item)))
            for mask in masks:  # (steps, windows, channels), time-major as the blocks' rows
                draws = random.integers(LEVELS, size=(len(mask), mask.shape[2]), dtype=np.uint16)
                mask[:, column] = draws >= threshold
        # (steps, windows, channels) -> (steps windows, channels)
        kept = [torch.from_numpy(mask).flatten(0, 1).to(device, non_blocking=True) for mask in masks]
        return Dropped(kept, scale)

    def _sequence(self, item: int) -> np.random.SeedSequence:
        # (seed, item) as a spawn key: epochs are shuffled by (seed, number) without one, and shall not share draws
        return np.random.SeedSequence(self.seed, spawn_key=(item,))

    def _drawn_by_torch(
        self, shapes: Sequence[tuple[int, int]], items: Sequence[int], threshold: int, device: torch.device
    ) -> list[Tensor]:
        """Draw the masks on the device, where they are used: other masks than a CPU's, from the same seeds."""
        sizes = [steps * channels for steps, channels in shapes]
        generator, columns = torch.Generator(device), []
        for item in items:
            generator.manual_seed(int(self._sequence(item).generate_state(1, np.uint64)[0] >> np.uint64(1)))
            draws = torch.randint(LEVELS, (sum(sizes),), generator=generator, dtype=torch.int32, device=device)
            columns.append(torch.split(draws >= threshold, sizes))
        # of each item (steps channels,) -> (steps, items, channels) -> (steps items, channels)
        return [
            torch.stack([mask.view(steps, channels) for mask in masks], dim=1).flatten(0, 1)
            for (steps, channels), masks in zip(shapes, zip(*columns, strict=True), strict=True)
        ]
