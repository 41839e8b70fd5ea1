"""Audio files: find them in a folder, read their headers, decode them, write new ones."""

from __future__ import annotations

import os
import shlex
import stat
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from wavegen.errors import AudioError, DataError, UsageError

Floats = npt.NDArray[np.float32]

# fmt: off
READABLE = frozenset((
    ".wav", ".wave", ".bwf", ".rf64", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".mp2", ".aif", ".aiff",
    ".aifc", ".au", ".snd", ".caf", ".voc", ".sph", ".nist", ".sf", ".ircam", ".svx", ".8svx", ".paf", ".pvf",
))
NEEDS_CONVERSION = frozenset((
    ".m4a", ".m4b", ".aac", ".mp4", ".m4v", ".mov", ".wma", ".asf", ".webm", ".mka", ".mkv", ".avi", ".3gp", ".amr",
    ".ac3", ".eac3", ".dts", ".ape", ".wv", ".tta", ".mpc", ".alac", ".ra", ".rm", ".spx", ".gsm", ".dsf", ".dff",
))
# fmt: on
WRITABLE = (".wav", ".flac", ".ogg")

UNKNOWN_FRAMES = 2**63 - 1  # libsndfile's SF_COUNT_MAX: a stream whose header does not say how long it is
MAX_FRAMES = 2**30  # 6.2 hours at 48 kHz, 4 GiB as float32: a clip is prepared in memory
MAX_SECONDS = 24 * 3600  # bounds what a file of 1 Hz becomes at the model's rate
BLOCK_VALUES = 2**16  # samples times channels that are decoded at once

PCM_SCALE = 32768  # what libsndfile divides 16-bit samples by, so that reading and writing are inverse
MAX_OGG_RATE_HZ = 200_000  # libvorbis knows no higher one, and libsndfile 1.2.2 crashes when asked
WRITE_BLOCK = 2**16  # libsndfile crashes on Vorbis writes of some millions of samples


# --- find ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FoundAudio:
    """What a folder holds. Names are relative to it, with forward slashes, sorted.

    Attributes:
        names: regular files whose ending libsndfile reads.
        unusable: (name, reason) of what looks like audio, or like a folder, and cannot be used.
        n_ignored: how many entries are plainly no audio: text, pictures, hidden files and hidden folders.
    """

    names: tuple[str, ...]
    unusable: tuple[tuple[str, str], ...]
    n_ignored: int


def find_audio(folder: Path) -> FoundAudio:
    """List the audio files in a folder and all folders below; no file is opened.

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
        raise UsageError(f"{where}: expected a folder of recordings, found none ({error.strerror})") from error
    if not is_folder:
        raise UsageError(f"{where}: expected a folder of recordings, found a file")
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
            elif entry.is_dir():
                (links if entry.is_symlink() else folders).append(name + "/")
            elif not entry.is_file():
                unusable.append((name, _what_else(folder / name)))
            elif _suffix(entry.name) in READABLE:
                names.append(name)
            elif _suffix(entry.name) in NEEDS_CONVERSION:
                unusable.append((name, _convert_it(entry.name)))
            else:
                n_ignored += 1
    return FoundAudio(tuple(sorted(names)), tuple(sorted(unusable)), n_ignored)


def printable(path: str | Path) -> str:
    """A path as one line of valid text: line breaks, control characters and undecodable bytes are escaped."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in str(path)
    )


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 (a scan of 10,000 names; a Path each costs more)


def _what_else(path: Path) -> str:
    """Why something that is neither a regular file nor a folder is not used."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return f"a broken link ({error.strerror})" if path.is_symlink() else f"cannot be read ({error.strerror})"
    kinds = {
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFDIR: "a folder",
    }
    return f"{kinds.get(stat.S_IFMT(mode), 'something else')}, not a file"


def _convert_it(name: str) -> str:
    source = printable(name)
    target = printable(Path(name).with_suffix(".flac").name)
    return f"libsndfile cannot read this format; convert it: ffmpeg -i {shlex.quote(source)} {shlex.quote(target)}"


# --- read ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AudioInfo:
    """What an audio file's header says.

    Attributes:
        rate_hz: samples per second.
        channels: 1 for mono.
        frames: samples per channel; None where the header does not know.
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
        """Length; None where the header does not know."""
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
    with _open_audio(path) as source:
        return _read_info(source)


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
    source = _open_audio(path)
    info = _read_info(source)
    return info, _decode_blocks(path, source, info)


def decode(path: Path) -> tuple[Floats, int]:
    """Decode a whole audio file.

    Returns:
        (frames, channels) float32, full scale at 1, and the sample rate in Hz.

    Raises:
        UsageError, AudioError: as `read_blocks`.
    """
    info, blocks = read_blocks(path)
    return np.concatenate(list(blocks)), info.rate_hz


def _open_audio(path: Path) -> Any:
    """Open a regular file with libsndfile, as a soundfile.SoundFile that is read front to back."""
    import soundfile

    class ForwardOnly(soundfile.SoundFile):  # type: ignore[misc]
        """Soundfile seeks after each block, and fails at the end of a FLAC whose header knows no length."""

        def seekable(self) -> bool:
            return False

    where = printable(path)
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise UsageError(f"{where}: expected an audio file, found nothing there") from error
    except OSError as error:
        raise AudioError(f"{where}: cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(status.st_mode):
        raise AudioError(f"{where}: {_what_else(path)}")
    if status.st_size == 0:
        raise AudioError(f"{where}: the file is empty (0 bytes)")
    if _suffix(path.name) in NEEDS_CONVERSION:
        raise AudioError(f"{where}: {_convert_it(path.name)}")
    try:
        with path.open("rb"):
            pass  # libsndfile calls a file that may not be read "not found"
        return ForwardOnly(os.fsencode(path))  # as text it must be valid UTF-8
    except OSError as error:
        raise AudioError(f"{where}: cannot be read ({error.strerror})") from error
    except soundfile.LibsndfileError as error:
        reason = error.error_string.strip().rstrip(".")
        if error.code in (1, 7):  # the latter, "no regular file", is what it says of an MP3 without any frame
            reason = "no audio format is recognized in it"
        raise AudioError(
            f"{where}: libsndfile cannot read it ({reason}); copy it again from its source, or convert it to FLAC"
        ) from error


def _read_info(source: Any) -> AudioInfo:
    frames = None if source.frames == UNKNOWN_FRAMES else int(source.frames)
    return AudioInfo(source.samplerate, source.channels, frames, source.format, source.subtype)


def _decode_blocks(path: Path, source: Any, info: AudioInfo) -> Iterator[Floats]:
    import soundfile

    where = printable(path)
    max_frames = min(MAX_FRAMES, MAX_SECONDS * info.rate_hz)
    block_frames = max(1, BLOCK_VALUES // info.channels)
    n_frames = 0
    with source:
        while True:
            try:
                block: Floats = source.read(block_frames, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                reason = error.error_string.strip().rstrip(".").removeprefix("Error : ")
                raise AudioError(
                    f"{where}: damaged ({reason}, not long after {n_frames / info.rate_hz:.1f} s);"
                    " copy it again from its source"
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


# --- write --------------------------------------------------------------------------------------------------


class AudioWriter:
    """Write mono audio to a file or a pipe as it is made.

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
        BrokenPipeError: whoever read from the pipe has gone.
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
        self._where = "standard output" if self._path is None else printable(self._path)
        self._overwrite = overwrite
        self._stream = stream

    def __enter__(self) -> AudioWriter:
        try:
            self._sink: _WavSink | _EncodedSink
            if self._path is None:
                self._sink = _WavSink(self._stream or sys.stdout.buffer, self.rate_hz, self._n_promised, pipe=True)
            elif _suffix(self._path.name) == ".wav":
                file = self._path.open("wb" if self._overwrite else "xb")
                self._sink = _WavSink(file, self.rate_hz, 0, pipe=False)
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
            if kind is None:  # otherwise the first error says it
                raise self._explain(failure) from failure
        if kind is not None and self.n_written == 0 and self._path is not None:
            self._path.unlink(missing_ok=True)

    def _explain(self, error: Exception) -> Exception:
        if isinstance(error, BrokenPipeError):
            return error
        if isinstance(error, FileExistsError):
            return UsageError(_exists(self._where))
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
        else:
            reason = f"{str(error).rstrip('.')}; is the disk full?"
        seconds = self.n_written / self.rate_hz
        kept = f"; the {seconds:.1f} s before are kept" if self.n_written else ""
        return AudioError(f"{self._where}: cannot be written ({reason}){kept}")


class _WavSink:
    """16-bit mono WAV, to a file whose header follows its length or to a pipe that is told it beforehand."""

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
        """RIFF header; the maximum for a length that is not known, or that 32 bits cannot hold."""
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
            left = left[self._file.write(left) or 0 :]


class _EncodedSink:
    """FLAC or Ogg Vorbis through libsndfile."""

    def __init__(self, path: Path, rate_hz: int, overwrite: bool) -> None:
        import soundfile

        self._flac = _suffix(path.name) == ".flac"
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
    where = printable(path)
    if _suffix(path.name) not in WRITABLE:
        raise UsageError(f"{where}: expected a file ending in {', '.join(WRITABLE)}, or - for standard output")
    try:
        if not path.parent.is_dir():
            raise UsageError(f"{where}: the folder {printable(path.parent)} does not exist; make it first")
        exists = path.exists()
    except OSError as error:  # such as a name too long
        raise UsageError(f"{where}: cannot be written ({error.strerror})") from error
    if exists and not path.is_file():
        raise UsageError(f"{where}: expected a file to write, found {_what_else(path)}; - writes to standard output")
    if exists and not overwrite:
        raise UsageError(_exists(where))
    if _suffix(path.name) == ".ogg" and rate_hz > MAX_OGG_RATE_HZ:
        raise UsageError(f"{where}: Ogg Vorbis goes up to {MAX_OGG_RATE_HZ} Hz, the audio has {rate_hz}; use .wav")


def _exists(where: str) -> str:
    return f"{where}: already exists; give another name, or --overwrite to replace it"


def _to_pcm(block: Floats) -> npt.NDArray[np.int16]:
    return np.clip(np.rint(block * PCM_SCALE), -PCM_SCALE, PCM_SCALE - 1).astype(np.int16)
