"""Read audio files: headers, and samples block by block. The decoder is ``wavegen.audio.decoder``."""

from __future__ import annotations

import errno
import shlex
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from wavegen.audio.decoder import Decoder, DecoderError, acquire_decoder
from wavegen.audio.find import NEEDS_CONVERSION, ffmpeg_command, suffix
from wavegen.errors import AudioError, UsageError
from wavegen.text import describe_kind, printable

Floats = npt.NDArray[np.float32]

UNKNOWN_FRAMES = 2**63 - 1  # libsndfile's SF_COUNT_MAX: a stream whose header does not say how long it is
MAX_FRAMES = 2**30  # 6.2 hours at 48 kHz, 4 GiB as float32: a clip is prepared in memory
MAX_SECONDS = 24 * 3600  # bounds what a file of 1 Hz becomes at the model's rate
BLOCK_VALUES = 2**16  # samples times channels that are decoded at once
# libsndfile's error numbers; the latter, "no regular file", is for an MP3 without a frame
NO_AUDIO = (1, 7)

NONE = np.zeros(0, np.float32)


@dataclass(frozen=True)
class AudioInfo:
    """The header of an audio file.

    Attributes:
        rate_hz: samples per second.
        channels: 1 for mono.
        frames: samples per channel; None where the header does not have it.
        container: libsndfile's name of the file format, such as "WAV" or "OGG".
        encoding: libsndfile's name of the sample format, such as "PCM_16" or "VORBIS".
    """

    rate_hz: int
    channels: int
    frames: int | None
    container: str
    encoding: str

    @property
    def seconds(self) -> float | None:
        """Length; None where the header does not have it."""
        return None if self.frames is None else self.frames / self.rate_hz

    @property
    def bits(self) -> int | None:
        """Bits per sample; None for lossy encodings."""
        known = {"FLOAT": 32, "DOUBLE": 64, "ULAW": 8, "ALAW": 8}
        last = self.encoding.rsplit("_", 1)[-1].removeprefix("S").removeprefix("U")
        lossless = self.encoding.startswith(("PCM_", "ALAC_", "DPCM_"))
        return int(last) if lossless and last.isdecimal() else known.get(self.encoding)


def probe(path: Path) -> AudioInfo:
    """Read an audio file's header.

    Raises:
        UsageError: there is no such file.
        AudioError: it is not audio that libsndfile reads.
    """
    _check_file(path)
    with acquire_decoder() as decoder:
        return _open_audio(path, decoder, 0)[0]


def read_blocks(path: Path) -> tuple[AudioInfo, Iterator[Floats]]:
    """Decode an audio file block by block, in memory that does not grow with it.

    Args:
        path: a regular file.

    Returns:
        The header, and an iterator of (frames, channels) float32 blocks, none of them empty. What the header
        claims and what comes out of a damaged file can differ.

    Raises:
        UsageError: there is no such file.
        AudioError: it is no audio, or (while iterating) it is damaged, longer than 24 hours or 2^30 frames, holds
            no sample at all or one that is not finite.
    """
    _check_file(path)
    parts = _decode(path)
    info = cast(AudioInfo, next(parts))
    return info, cast(Iterator[Floats], parts)


def decode(path: Path) -> tuple[Floats, int]:
    """Decode a whole audio file.

    Returns:
        (frames, channels) float32, full scale at 1, and the sample rate in Hz.

    Raises:
        UsageError, AudioError: as `read_blocks`.
    """
    info, blocks = read_blocks(path)
    return np.concatenate(list(blocks)), info.rate_hz


def _check_file(path: Path) -> None:
    """Check for a file that cannot be audio, before a decoder opens it."""
    where = printable(path)
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise UsageError(f"{where}: expected an audio file, found nothing there") from error
    except OSError as error:
        wrong = UsageError if error.errno == errno.ENAMETOOLONG else AudioError
        raise wrong(f"{where}: cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(status.st_mode):
        raise AudioError(f"{where}: {describe_kind(path)}")
    if status.st_size == 0:
        raise AudioError(f"{where}: the file is empty (0 bytes)")
    if suffix(path.name) in NEEDS_CONVERSION:
        raise AudioError(f"{where}: {ffmpeg_command(path.name)}")
    try:
        with path.open("rb"):
            pass  # libsndfile calls a file that may not be read "not found"
    except OSError as error:
        raise AudioError(f"{where}: cannot be read ({error.strerror})") from error


def _open_audio(path: Path, decoder: Decoder, n_values: int) -> tuple[AudioInfo, Iterator[Floats]]:
    try:
        header, samples = decoder.decode(path, n_values)
    except DecoderError as error:
        reason = "no audio format is recognized in it" if error.code in NO_AUDIO else _one_line(error)
        raise AudioError(
            f"{printable(path)}: libsndfile cannot read it ({reason});"
            " copy it again from its source, or convert it to FLAC",
            error.lasting,
        ) from error
    frames = None if header["frames"] == UNKNOWN_FRAMES else header["frames"]
    return AudioInfo(**{**header, "frames": frames}), samples


def _decode(path: Path) -> Iterator[AudioInfo | Floats]:
    """Yield the header, then the blocks; when the iterator is closed, the decoder is free again."""
    where = printable(path)
    with acquire_decoder() as decoder:
        info, samples = _open_audio(path, decoder, BLOCK_VALUES)
        yield info
        max_frames = min(MAX_FRAMES, MAX_SECONDS * info.rate_hz)
        n_frames = 0
        while True:
            try:
                block: Floats = next(samples, NONE).reshape(-1, info.channels)
            except DecoderError as error:
                raise AudioError(
                    f"{where}: damaged ({_one_line(error)}, not long after {n_frames / info.rate_hz:.1f} s);"
                    " copy it again from its source",
                    error.lasting,
                ) from error
            if not len(block):
                break
            if not np.isfinite(block).all():
                frame = int(np.argmin(np.isfinite(block).all(axis=1)))
                raise AudioError(
                    f"{where}: expected finite samples, found {block[frame].tolist()} at"
                    f" {(n_frames + frame) / info.rate_hz:.3f} s; export it again as 16 or 24-bit audio"
                )
            n_frames += len(block)
            if n_frames > max_frames:
                raise AudioError(
                    f"{where}: longer than {max_frames / info.rate_hz / 3600:.1f} hours; cut it into shorter files:"
                    f" ffmpeg -i {shlex.quote(printable(path.name))} -f segment -segment_time 3600 part%03d.flac"
                )
            yield block
    if n_frames == 0:
        raise AudioError(f"{where}: no audio in it (0 samples)")


def _one_line(error: DecoderError) -> str:
    """Return a decoder's message on one line, without libsndfile's prefix."""
    return printable(str(error).strip().rstrip(".").removeprefix("Error : "))
