"""Write generated audio to files while it is generated."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from itertools import chain
from itertools import count as counting
from pathlib import Path

import numpy as np

from wavegen.audio.quantize import Floats
from wavegen.audio.write import AudioWriter
from wavegen.errors import UsageError

MOST_CLIPS = 500  # all are open at once, and systems allow a thousand


def output_paths(output: str, count: int, overwrite: bool) -> list[str]:
    """Return the files of ``--count`` clips: the output itself, or numbered files next to it.

    Raises:
        UsageError: several clips for standard output, or a file that cannot be written.
    """
    if count > 1 and output == "-":
        raise UsageError("--count: standard output takes one clip; give -o FILE, or --count 1")
    paths = _numbered(output, count)
    for name in paths:
        AudioWriter(name, rate_hz=1, overwrite=overwrite)  # checks the target; no file is written yet
    return paths


def free_output(output: str, count: int) -> str:
    """Return a file name, or the next one like it (name-2.wav, name-3.wav, ...) none of whose files exists."""
    path = Path(output)
    names = chain([output], (f"{path.stem}-{i}{path.suffix}" for i in counting(2)))
    return next(name for name in names if not any(Path(each).exists() for each in _numbered(name, count)))


def _numbered(output: str, count: int) -> list[str]:
    if count > MOST_CLIPS:
        raise UsageError(f"--count: expected at most {MOST_CLIPS}, found {count}; call it again with another --seed")
    path, digits = Path(output), len(str(count))
    if count <= 1 or not path.name:
        return [output]
    return [str(path.with_name(f"{path.stem}-{i:0{digits}d}{path.suffix}")) for i in range(1, count + 1)]


def write_clip(clip: Floats, path: str, sample_rate_hz: int, overwrite: bool) -> None:
    """Write a (T,) clip to a file.

    Raises:
        UsageError, AudioError: as ``AudioWriter``.
    """
    with AudioWriter(path, sample_rate_hz, n_samples=len(clip), overwrite=overwrite) as writer:
        writer.write(clip)


def write_clips(
    blocks: Iterable[Floats],
    paths: list[str],
    sample_rate_hz: int,
    *,
    n_samples: int | None,
    before: Floats,
    overwrite: bool,
    written: Callable[[int], None],
) -> None:
    """Write blocks of clips to their files; an interruption leaves files that play.

    Files are created or replaced when the first block arrives: a failure before it changes no file.

    Args:
        blocks: (count, n) float32 each.
        paths: one for each clip.
        sample_rate_hz: of the clips.
        n_samples: length of each clip without what comes before; None if it has no end.
        before: (T,) written ahead of each clip: the prime, or nothing.
        overwrite: replace existing files.
        written: called with the number of samples that each clip has so far.

    Raises:
        UsageError, AudioError, BrokenPipeError: as ``AudioWriter``.
    """
    length = None if n_samples is None else n_samples + len(before)
    writers = [AudioWriter(path, sample_rate_hz, n_samples=length, overwrite=overwrite) for path in paths]
    with ExitStack() as stack:
        made = 0
        for block in blocks:
            if not made:
                for writer in writers:
                    stack.enter_context(writer)
                    writer.write(before)
            for writer, clip in zip(writers, block, strict=True):
                writer.write(np.ascontiguousarray(clip))
            made += block.shape[1]
            written(made)
