"""Mutated recordings and configurations: each is read, or refused with its reason, in bounded time and memory.

So many of them every day, always the same; with WAVEGEN_FUZZ_MINUTES new ones for so long, half of it each.
"""

import os
import resource
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wavegen.audio.quantize import Quantizer
from wavegen.audio.waveform import Preparation
from wavegen.config import load_config
from wavegen.data.cache import ClipCache, ClipSettings
from wavegen.data.corpus import StoredClip
from wavegen.errors import UsageError

MINUTES = float(os.environ.get("WAVEGEN_FUZZ_MINUTES", "0"))
RATE = 16000
SETTINGS = ClipSettings(Preparation(RATE), Quantizer("mu_law", 256))
FORMATS = [
    ("wav", "WAV", "PCM_16"),
    ("wav", "WAV", "FLOAT"),
    ("wav", "WAVEX", "PCM_24"),
    ("wav", "WAV", "MS_ADPCM"),
    ("flac", "FLAC", "PCM_16"),
    ("ogg", "OGG", "VORBIS"),
    ("opus", "OGG", "OPUS"),
    ("mp3", "MP3", "MPEG_LAYER_III"),
    ("aiff", "AIFF", "PCM_16"),
    ("caf", "CAF", "ALAC_16"),
]
PRESETS = [path.read_bytes() for path in sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))]
PIECES = [b"\n", b"  ", b": ", b"- ", b"? ", b"&a ", b"*a", b"!!", b"{", b"[", b"'", b'"', b"|", b"#", b"\0", b"\xff"]
PIECES.append(b"9" * 30)


def rounds(n):
    """Yield rounds, each with its own random numbers: n, or as many as fit into half of WAVEGEN_FUZZ_MINUTES.

    The seed of the round that failed is the last one printed; WAVEGEN_SEED begins with it.
    """
    seed = int(os.environ.get("WAVEGEN_SEED", time.time_ns() % 2**32 if MINUTES else 1))
    deadline, done = time.monotonic() + 30 * MINUTES, 0
    while time.monotonic() < deadline if MINUTES else done < n:
        print(f"\rround {done + 1}: WAVEGEN_SEED={seed + done} ", end="")
        yield np.random.default_rng(seed + done)
        done += 1
    assert done


def mutated_recording(content, rng):
    """Some bytes changed, in the header more often than not; sometimes a part cut out, cut off or said twice."""
    mutant = bytearray(content)
    reach = min(len(mutant), int(rng.choice([48, 128, len(mutant)])))
    for place in rng.integers(0, reach, rng.integers(1, 8)):
        mutant[place] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.integers(256)])
    start, stop = sorted(rng.integers(0, len(mutant), 2))
    return bytes(
        [
            *[lambda: mutant] * 6,
            lambda: mutant[:stop],
            lambda: mutant[:start] + mutant[stop:],
            lambda: mutant[:stop] + mutant[start:],
        ][rng.integers(9)]()
    )


@pytest.mark.timeout(60 * MINUTES + 1800)
def test_fuzz_recordings(tmp_path, how_many, same_threads):
    """A round is 21 mutants of each format; those of the round that failed are left where they are."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    n_files = n_usable = 0
    for rng in rounds(how_many(5, 250)):
        place = tmp_path / "round"
        (place / "audio").mkdir(parents=True)
        paths = []
        for ending, container, encoding in FORMATS:
            original = place / f"original.{ending}"
            noise = rng.uniform(-0.5, 0.5, (2000, 2)).astype(np.float32)
            soundfile.write(original, noise, 48000 if encoding == "OPUS" else RATE, format=container, subtype=encoding)
            for i in range(21):
                paths.append(place / "audio" / f"{encoding}-{i}.{ending}")
                paths[-1].write_bytes(mutated_recording(original.read_bytes(), rng))
        outcomes = ClipCache(place / "cache").prepare(paths, SETTINGS)
        usable = [outcome for outcome in outcomes if isinstance(outcome, StoredClip)]
        for outcome in outcomes:
            assert isinstance(outcome, StoredClip) or (len(outcome) > 10 and outcome.isprintable())
        assert all(outcome.n_samples > 0 and np.isfinite(outcome.peak) for outcome in usable)
        n_files, n_usable = n_files + len(paths), n_usable + len(usable)
        shutil.rmtree(place)
    print(f"{n_files:,} recordings, {n_usable:,} usable")
    assert 0.1 < n_usable / n_files < 0.95
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kilobytes


def mutated_configuration(rng):
    """A preset in which a few bytes are replaced by what means something in YAML."""
    content = bytearray(PRESETS[rng.integers(len(PRESETS))])
    for _ in range(rng.integers(1, 6)):
        place = int(rng.integers(len(content) + 1))
        content[place : place + int(rng.integers(4))] = PIECES[rng.integers(len(PIECES))]
    return bytes(content)


@pytest.mark.timeout(60 * MINUTES + 1800)
def test_fuzz_configurations(tmp_path, how_many):
    """A round is 200 of them; the one that failed is left where it is."""
    path = tmp_path / "mutant.yaml"
    n_files = n_usable = 0
    for rng in rounds(how_many(3, 100)):
        for _ in range(200):
            path.write_bytes(mutated_configuration(rng))
            started, said = time.process_time(), None
            try:
                load_config(path)
            except UsageError as error:
                said = str(error)
            assert said is None or said.startswith(str(path))
            assert time.process_time() - started < 2
            n_files, n_usable = n_files + 1, n_usable + (said is None)
    print(f"{n_files:,} configurations, {n_usable:,} usable")
    assert 0.05 < n_usable / n_files < 0.95
