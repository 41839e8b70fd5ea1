from itertools import pairwise

import numpy as np
import pytest

from wavegen.sampling.sampler import uniforms

STARTS = [0, 1, 2, 3, 4, 1601, 2**32 - 2, 2**32 + 5, 2**53 + 1, 2**64 - 3, 2**66 - 3, 2**70 + 1]


def test_the_numbers_are_philox_4x64_10():
    """The known answer of Random123 (kat_vectors: philox4x64 10, counter 0, key 0)."""
    words = [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]
    assert uniforms(0, 0, 0, 4).tolist() == [(word >> 11) / 2**53 for word in words]


@pytest.mark.parametrize("start", STARTS)
def test_any_chunking_gives_the_same_numbers(start):
    whole = uniforms(7, 2, start, start + 100)
    assert whole.dtype == np.float64
    assert whole.shape == (100,)
    cuts = [0, 1, 2, 3, 7, 8, 8, 50, 97, 100]
    chunks = [uniforms(7, 2, start + a, start + b) for a, b in pairwise(cuts)]
    assert np.array_equal(np.concatenate(chunks), whole)
    assert uniforms(7, 2, start, start).shape == (0,)


def test_seeds_clips_and_places_all_count():
    """Chance of a false alarm: two equal numbers of 53 bits among 11,000, < 1e-8; the seeds are fixed anyway."""
    streams = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 1), (1, 2), (0, 2**32), (2**32, 0), (2**63, 7), (2**64 - 1, 7)]
    numbers = [uniforms(seed, clip, 0, 1000) for seed, clip in streams]
    numbers.append(uniforms(0, 0, 2**40, 2**40 + 1000))
    assert len(np.unique(np.concatenate(numbers))) == 11_000


def test_numbers_are_uniform():
    """Kolmogorov's distance over 100,000 numbers, and the correlation of neighbours, clips and seeds.

    Chance of a false alarm: the distance exceeds 2.5 / sqrt(n) with 2 exp(-12.5) < 1e-5, a correlation 5 standard
    deviations with 6e-7 each; the seeds are fixed anyway.
    """
    n = 100_000
    numbers = uniforms(3, 0, 0, n)
    assert 0 <= numbers.min() < numbers.max() < 1
    ranks = np.arange(n) / n
    assert np.abs(np.sort(numbers) - ranks).max() < 2.5 / np.sqrt(n)
    for other in (uniforms(3, 0, 1, n + 1), uniforms(3, 0, 4, n + 4), uniforms(3, 1, 0, n), uniforms(4, 0, 0, n)):
        assert abs(np.corrcoef(numbers, other)[0, 1]) < 5 / np.sqrt(n)
