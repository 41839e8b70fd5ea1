"""Clips whose every sample is a number of its own, so that a window says where it comes from."""

from dataclasses import dataclass

import numpy as np


@dataclass
class NumberedClip:
    """The numbers first, first + 1, ... as ``wavegen.data.windows`` reads them."""

    first: int
    n_samples: int
    dtype: type = np.int64

    def classes(self):
        return np.arange(self.first, self.first + self.n_samples, dtype=self.dtype)


def numbered_clips(lengths):
    """Clips that go on counting where the one before ends."""
    firsts = np.cumsum([0, *lengths])
    return [NumberedClip(int(first), length) for first, length in zip(firsts, lengths, strict=False)]
