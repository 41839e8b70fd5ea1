"""Write mono audio to files or a pipe as it is made: one clip, or several side by side."""

from __future__ import annotations

import os
import select
import struct
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from itertools import chain
from itertools import count as counting
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from wavegen.audio.quantize import Floats
from wavegen.errors import AudioError, UsageError
from wavegen.output_file import already_exists, check_writable
from wavegen.text import printable

WRITABLE = (".wav", ".flac", ".ogg")
PCM_SCALE = 32768  # libsndfile divides 16-bit samples by it, so that reading and writing are inverse
MAX_OGG_RATE_HZ = 200_000  # libvorbis knows no higher one, and libsndfile 1.2.2 crashes when asked
MOST_CLIPS = 500  # all are open at once, and systems allow a thousand
WRITE_BLOCK = 2**16  # libsndfile crashes on Vorbis writes of some millions of samples


class AudioWriter:
    """Write mono audio to a file or a pipe while it is generated.

    WAV and FLAC get 16 bits, Ogg Vorbis its usual quality. After each block a WAV file is whole: its header gives
    the length written so far, so that a kill leaves a file that plays. A pipe cannot go back: its header gives
    `n_samples`, or the largest length there is for a stream without end.

        with AudioWriter(Path("new.wav"), 16000) as writer:
            for block in blocks:
                writer.write(block)

    Args:
        target: a file ending in .wav, .flac or .ogg, or "-" for WAV to standard output.
        rate_hz: sample rate.
        n_samples: the length if it is known beforehand; used for a pipe only.
        overwrite: replace an existing file.
        stream: what "-" stands for, if not standard output.

    Raises:
        UsageError: the target exists, is no file, has another ending, or its folder does not exist.
        AudioError: (when entered, while writing or at the end) it cannot be written.
        BrokenPipeError: the reader of the pipe has closed it.
    """

    def __init__(
        self,
        target: str | Path,
        rate_hz: int,
        *,
        n_samples: int | None = None,
        overwrite: bool = False,
        stream: BinaryIO | None = None,
    ) -> None:
        self.rate_hz = rate_hz
        self.n_written = 0
        self._n_promised = n_samples
        self._path: Path | None = None
        if str(target) != "-":
            self._path = Path(target)
            _check_target(self._path, rate_hz, overwrite)
        self._overwrite = overwrite
        self._stream = stream

    def __enter__(self) -> AudioWriter:
        try:
            self._sink: _WavSink | _EncodedSink
            if self._path is None:
                self._sink = _WavSink(self._stream or sys.stdout.buffer, self.rate_hz, self._n_promised, pipe=True)
            elif self._path.suffix.lower() == ".wav":
                file = self._path.open("wb" if self._overwrite else "xb")
                try:
                    self._sink = _WavSink(file, self.rate_hz, 0, pipe=False)
                except OSError:  # no room for the header
                    file.close()
                    self._path.unlink()
                    raise
            else:
                self._sink = _EncodedSink(self._path, self.rate_hz, self._overwrite)
        except (OSError, RuntimeError) as error:
            raise self._explain(error) from error
        return self

    def write(self, block: Floats) -> None:
        """Append samples.

        Args:
            block: (T,) float32; values outside [-1, 1] are clipped.
        """
        if not np.isfinite(block).all():
            raise AudioError(f"{self._where}: expected finite samples to write, found others; the model is broken")
        try:
            self._sink.write(block)
        except (OSError, RuntimeError) as error:
            raise self._explain(error) from error
        self.n_written += len(block)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._sink.close()
        except (OSError, RuntimeError) as failure:
            if kind is None:  # else the first error is reported
                raise self._explain(failure) from failure
        if kind is not None and self.n_written == 0 and self._path is not None:
            self._path.unlink(missing_ok=True)

    @property
    def _where(self) -> str:
        return "standard output" if self._path is None else printable(self._path)

    def _explain(self, error: Exception) -> Exception:
        if isinstance(error, BrokenPipeError):
            return error
        if isinstance(error, FileExistsError):
            assert self._path is not None
            return already_exists(self._path)
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
        else:
            reason = f"{str(error).rstrip('.')}; is the disk full?"
        seconds = self.n_written / self.rate_hz
        kept = f"; the {seconds:.1f} s before are kept" if self.n_written else ""
        return AudioError(f"{self._where}: cannot be written ({reason}){kept}")


class _WavSink:
    """Writes 16-bit mono WAV; a file's header follows its length, a pipe's header gives the length in advance."""

    def __init__(self, file: BinaryIO, rate_hz: int, n_samples: int | None, *, pipe: bool) -> None:
        self._file: Any = getattr(file, "raw", file)  # unbuffered: nothing is left to fail again when it is closed
        self._rate_hz = rate_hz
        self._pipe = pipe
        self._n_bytes = 0
        if pipe:
            file.flush()
        self._write_all(self._header(None if n_samples is None else 2 * n_samples))
        self._owner = file

    def write(self, block: Floats) -> None:
        samples = _to_pcm(block).astype("<i2").tobytes()
        self._write_all(samples)
        self._n_bytes += len(samples)
        if not self._pipe:
            self._file.seek(0)
            self._write_all(self._header(self._n_bytes))
            self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        if not self._pipe:
            self._owner.close()

    def _header(self, n_bytes: int | None) -> bytes:
        """Return a RIFF header, with the maximum for a length that is unknown or above 32 bits."""
        largest = 2**32 - 1
        data, riff = (largest, largest) if n_bytes is None else (n_bytes, n_bytes + 36)
        pcm, channels, frame_bytes, bits = 1, 1, 2, 16
        return struct.pack(
            "<4sI4s4sIHHIIHH4sI",
            *(b"RIFF", min(riff, largest), b"WAVE"),
            *(b"fmt ", 16, pcm, channels, self._rate_hz, self._rate_hz * frame_bytes, frame_bytes, bits),
            *(b"data", min(data, largest)),
        )

    def _write_all(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            n_written = self._file.write(left)
            if n_written is None:  # a pipe that does not wait by itself
                select.select([], [self._file], [])
            left = left[n_written or 0 :]


class _EncodedSink:
    """FLAC or Ogg Vorbis through libsndfile."""

    def __init__(self, path: Path, rate_hz: int, overwrite: bool) -> None:
        import soundfile

        self._flac = path.suffix.lower() == ".flac"
        mode: Literal["w", "x"] = "w" if overwrite else "x"
        encoding = {"format": "FLAC", "subtype": "PCM_16"} if self._flac else {"format": "OGG", "subtype": "VORBIS"}
        self._file = soundfile.SoundFile(os.fsencode(path), mode, samplerate=rate_hz, channels=1, **encoding)

    def write(self, block: Floats) -> None:
        samples = _to_pcm(block) if self._flac else np.clip(block, -1.0, 1.0)
        for start in range(0, len(samples), WRITE_BLOCK):
            self._file.write(samples[start : start + WRITE_BLOCK])

    def close(self) -> None:
        self._file.close()


def _check_target(path: Path, rate_hz: int, overwrite: bool) -> None:
    if path.suffix.lower() not in WRITABLE:
        raise UsageError(
            f"{printable(path)}: expected a file ending in {', '.join(WRITABLE)}, or - for standard output"
        )
    check_writable(path, overwrite, alternative="; - writes to standard output")
    if path.suffix.lower() == ".ogg" and rate_hz > MAX_OGG_RATE_HZ:
        raise UsageError(
            f"{printable(path)}: Ogg Vorbis goes up to {MAX_OGG_RATE_HZ} Hz, the audio has {rate_hz}; use .wav"
        )


def _to_pcm(block: Floats) -> npt.NDArray[np.int16]:
    return np.clip(np.rint(block * PCM_SCALE), -PCM_SCALE, PCM_SCALE - 1).astype(np.int16)


# --- clips to files ------------------------------------------------------------------------------------------------


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
