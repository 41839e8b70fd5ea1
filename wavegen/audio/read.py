"""Find the audio files of a folder; read their headers, and their samples block by block.

The decoder is ``wavegen.audio.decoder``.
"""

from __future__ import annotations

import errno
import os
import shlex
import stat
from collections.abc import Callable, Generator, Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from wavegen.audio.containers import find_layout
from wavegen.audio.decoder import Decoder, DecoderError, acquire_decoder
from wavegen.audio.quantize import Floats
from wavegen.errors import AudioError, DataError, UsageError
from wavegen.text import describe_kind, printable

# fmt: off
READABLE = frozenset((
    ".wav", ".wave", ".bwf", ".rf64", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".mp2", ".aif", ".aiff",
    ".aifc", ".au", ".snd", ".caf", ".voc", ".sph", ".nist", ".sf", ".ircam", ".svx", ".8svx", ".paf", ".pvf",
))
NEEDS_CONVERSION = frozenset((
    ".m4a", ".m4b", ".aac", ".mp4", ".m4v", ".mov", ".wma", ".asf", ".webm", ".mka", ".mkv", ".avi", ".3gp", ".amr",
    ".ac3", ".eac3", ".dts", ".ape", ".wv", ".tta", ".mpc", ".alac", ".ra", ".rm", ".spx", ".gsm", ".dsf", ".dff",
    ".raw", ".pcm",
))
# fmt: on
HEADERLESS = (".raw", ".pcm")
# What the formats of NEEDS_CONVERSION have at their beginning, whatever the file is called: offset, bytes, name.
SIGNATURES = (
    (4, b"ftyp", "MP4"),
    (0, b"\x1aE\xdf\xa3", "Matroska or WebM"),
    (0, b"0&\xb2u\x8ef\xcf\x11", "Windows Media"),
    (0, b"#!AMR", "AMR"),
)
SERIES_ENDINGS = frozenset((".npy", ".csv"))  # series of numbers, see wavegen.series.files

MOST_FRAMES = 2**44  # a longer stream is one of unknown length: libsndfile's SF_COUNT_MAX, or a guess from no length
MAX_FRAMES = 2**33  # 24 hours at 96 kHz
MAX_SECONDS = 24 * 3600  # bounds the size of a file of 1 Hz after resampling
BLOCK_VALUES = 2**16  # samples times channels that are decoded at once
# libsndfile's error numbers; the latter, "no regular file", is for an MP3 without a frame
NO_AUDIO = (1, 7)

LARGEST_INTEGER = 2.0**31  # integers may have been stored as floats
NONE = np.zeros(0, np.float32)


@dataclass(frozen=True)
class FoundAudio:
    """The files in a folder. Names are relative to it, with forward slashes, sorted.

    Attributes:
        names: regular files with a wanted ending: for audio one that libsndfile reads.
        unusable: (name, reason) of entries that look like one, or like a folder, and cannot be used.
        n_ignored: number of all other entries: text, pictures, hidden files and hidden folders.
    """

    names: tuple[str, ...]
    unusable: tuple[tuple[str, str], ...]
    n_ignored: int


def find_audio(folder: Path) -> FoundAudio:
    """List the audio files in a folder and all folders below; arguments and errors as ``find_files``."""
    return find_files(folder, READABLE, NEEDS_CONVERSION, "recordings")


def find_files(folder: Path, readable: Set[str], hopeless: Set[str], what: str) -> FoundAudio:
    """List the files of some endings in a folder and all folders below; no file is opened.

    Args:
        folder: to search.
        readable: endings of the files that are wanted, in lower case, with their dot.
        hopeless: endings of audio in formats that cannot be read.
        what: what the folder should hold, for errors.

    Links are followed. A folder that is reached twice, by a link or a loop of links, counts once, under its
    own name rather than the link's.

    Raises:
        UsageError: the folder does not exist or is something else.
        DataError: it cannot be listed.
    """
    where = printable(folder)
    try:
        is_folder = stat.S_ISDIR(folder.stat().st_mode)
    except OSError as error:
        raise UsageError(f"{where}: expected a folder of {what}, found none ({error.strerror})") from error
    if not is_folder:
        raise UsageError(f"{where}: expected a folder of {what}, found a file")
    names: list[str] = []
    unusable: list[tuple[str, str]] = []
    n_ignored = 0
    visited: dict[tuple[int, int], str] = {}
    folders = [""]  # relative, each ending in a slash
    links: list[str] = []  # looked into after all real folders
    while folders or links:
        inside = folders.pop() if folders else links.pop(0)
        try:
            status = (folder / inside).stat()
            first = visited.setdefault((status.st_dev, status.st_ino), inside)
            if first != inside:
                known_as = "the folder itself" if first == "" else printable(first)
                unusable.append((inside, f"a link to a folder that is already in: {known_as}"))
                continue
            with os.scandir(folder / inside) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            if inside == "":
                raise DataError(f"{where}: cannot be listed ({error.strerror})") from error
            unusable.append((inside, f"cannot be listed ({error.strerror})"))
            continue
        for entry in entries:
            name = inside + entry.name
            if entry.name.startswith("."):
                n_ignored += 1
            elif _is(entry.is_dir):
                (links if entry.is_symlink() else folders).append(name + "/")
            elif not _is(entry.is_file):
                unusable.append((name, describe_kind(folder / name)))
            elif suffix(entry.name) in readable:
                names.append(name)
            elif suffix(entry.name) in hopeless:
                unusable.append((name, ffmpeg_command(folder / name)))
            else:
                n_ignored += 1
    return FoundAudio(tuple(sorted(names)), tuple(sorted(unusable)), n_ignored)


def _is(kind: Callable[[], bool]) -> bool:
    """Return whether an entry is of a kind; a link to itself is not."""
    try:
        return kind()
    except OSError:
        return False


def suffix(name: str) -> str:
    """Return a file name's ending in lower case, with its dot."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 (a scan of 10,000 names; a Path each costs more)


def ffmpeg_command(path: Path, found: str = "") -> str:
    """Return the reason why a format cannot be read, and the command that converts it.

    Args:
        path: of the file.
        found: the format, where its name does not tell.
    """
    # a path that begins with a dash would be an option
    names = (f"{path.parent}/{name}" for name in (path.name, path.with_suffix(".flac").name))
    source, target = (shlex.quote(printable(name)) for name in names)
    if suffix(path.name) in HEADERLESS:
        command = f"ffmpeg -f s16le -ar 44100 -ac 1 -i {source} {target}"
        return f"no header with rate and format; if it is sound, give it one: {command}"
    what = f"it is {found} by its content" if found else "libsndfile cannot read this format"
    return f"{what}; convert it: ffmpeg -i {source} -vn {target}"


# --- read them -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AudioInfo:
    """The header of an audio file.

    Attributes:
        rate_hz: samples per second.
        channels: 1 for mono.
        frames: samples per channel; None where the header does not have it.
        container: libsndfile's name of the file format, such as "WAV" or "OGG".
        encoding: libsndfile's name of the sample format, such as "PCM_16" or "VORBIS".
        claim: samples that the header claims, as a share of ``frames``; None where it makes no claim.
    """

    rate_hz: int
    channels: int
    frames: int | None
    container: str
    encoding: str
    claim: float | None = 1.0

    @property
    def claimed_seconds(self) -> float | None:
        """Length that the header claims; None where it makes no claim."""
        return None if self.seconds is None or self.claim is None else self.claim * self.seconds

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


class Recording:
    """An audio file that is decoded block by block, in memory that does not grow with it.

    Iterate over it, once, for (frames, channels) float32 blocks, none of them empty. What the header claims and what
    comes out of a damaged file can differ.

    Args:
        path: a regular file.

    Attributes:
        info: the header.
        n_frames: samples per channel that came out so far.
        damage: why decoding ended before the end of the file; None if it did not.

    Raises:
        UsageError: there is no such file.
        AudioError: it is no audio, or (while iterating) it is damaged from the start, longer than 24 hours or 2^33
            frames, holds no sample, or one that is not finite or greater than any integer of 32 bits.
    """

    def __init__(self, path: Path) -> None:
        _check_file(path)
        self.path, self.n_frames = path, 0
        self.damage: str | None = None
        self._parts = self._decode()
        self.info = cast(AudioInfo, next(self._parts))

    def __iter__(self) -> Iterator[Floats]:
        return cast(Iterator[Floats], self._parts)

    def close(self) -> None:
        """Stop decoding."""
        self._parts.close()

    @property
    def seconds(self) -> float:
        """Length of what came out so far."""
        return self.n_frames / self.info.rate_hz

    @property
    def missing_seconds(self) -> float:
        """Length that the header claims and that did not come out; negative where more did."""
        claimed = self.info.claimed_seconds
        return 0.0 if claimed is None else claimed - self.seconds

    def _decode(self) -> Generator[AudioInfo | Floats, None, None]:
        """Yield the header, then the blocks; when the iterator is closed, the decoder is free again."""
        where = printable(self.path)
        with acquire_decoder() as decoder:
            info, samples = _open_audio(self.path, decoder, BLOCK_VALUES)
            yield info
            max_frames = min(MAX_FRAMES, MAX_SECONDS * info.rate_hz)
            while True:
                try:
                    block: Floats = next(samples, NONE).reshape(-1, info.channels)
                except DecoderError as error:
                    if error.code is not None and self.n_frames:
                        self.damage = _one_line(error)
                        return
                    raise AudioError(
                        f"{where}: damaged ({_one_line(error)}, not long after {self.seconds:.1f} s);"
                        " copy it again from its source",
                        error.lasting,
                    ) from error
                if not len(block):
                    break
                if not (np.abs(block) <= LARGEST_INTEGER).all():  # nor NaN
                    frame = int(np.argmin((np.abs(block) <= LARGEST_INTEGER).all(axis=1)))
                    raise AudioError(
                        f"{where}: expected samples within [-1, 1], found {block[frame].tolist()} at"
                        f" {(self.n_frames + frame) / info.rate_hz:.3f} s; export it again as 16 or 24-bit audio"
                    )
                self.n_frames += len(block)
                if self.n_frames > max_frames:
                    raise AudioError(
                        f"{where}: longer than {max_frames / info.rate_hz / 3600:.1f} hours; cut it into shorter files:"
                        f" ffmpeg -i {shlex.quote(printable(self.path.name))} -f segment -segment_time 3600"
                        " part%03d.flac"
                    )
                yield block
        if self.n_frames == 0:
            raise AudioError(f"{where}: no audio in it (0 samples)")


def decode(path: Path) -> tuple[Floats, int]:
    """Decode a whole audio file.

    Returns:
        (frames, channels) float32, full scale at 1, and the sample rate in Hz.

    Raises:
        UsageError, AudioError: as `Recording`.
    """
    recording = Recording(path)
    return np.concatenate(list(recording)), recording.info.rate_hz


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
        raise AudioError(f"{where}: {ffmpeg_command(path)}")
    try:
        with path.open("rb"):
            pass  # libsndfile calls a file that may not be read "not found"
    except OSError as error:
        raise AudioError(f"{where}: cannot be read ({error.strerror})") from error


def _open_audio(path: Path, decoder: Decoder, n_values: int) -> tuple[AudioInfo, Iterator[Floats]]:
    try:
        layout = find_layout(path)
        header, samples = decoder.decode(path, n_values, layout.parts)
    except DecoderError as error:
        with path.open("rb") as file:
            beginning = file.read(16)
        for at, signature, name in SIGNATURES:
            if beginning[at:].startswith(signature):
                raise AudioError(f"{printable(path)}: {ffmpeg_command(path, name)}") from error
        reason = "no audio format is recognized in it" if error.code in NO_AUDIO else _one_line(error)
        raise AudioError(
            f"{printable(path)}: libsndfile cannot read it ({reason});"
            " copy it again from its source, or convert it to FLAC",
            error.lasting,
        ) from error
    except OSError as error:
        raise AudioError(f"{printable(path)}: cannot be read ({error.strerror})", lasting=False) from error
    frames = layout.frames or (header["frames"] if header["frames"] < MOST_FRAMES else None)
    return AudioInfo(**{**header, "frames": frames}, claim=layout.claim), samples


def _one_line(error: DecoderError) -> str:
    """Return a decoder's message on one line, without libsndfile's prefix."""
    return printable(str(error).strip().rstrip(".").removeprefix("Error : "))
