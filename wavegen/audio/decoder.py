"""Decode audio in separate processes: a file that crashes or hangs the decoder fails alone, with a reason.

The two ends of the pipe are in this module. It is run by its path as the decoder process and imports nothing else of
wavegen, and numpy only on the asking side: the process starts in a quarter of a second. A request on its standard input
is two numbers in four bytes each, and a JSON list [path, parts] as long as the second one gives. The first one is the
number of values to decode at a time; with 0 the header alone is read. The parts are those of
``wavegen.audio.containers``; without any, the whole file is read as it is.

Answers on its standard output are a letter, the length of what follows, and that. They come as fast as they are read:

    h  {"rate_hz", "channels", "frames", "container", "encoding", "comment"}
    s  float32 samples of all channels, interleaved; one answer for each block
    e  {"code", "text"}: libsndfile's error number, if it has one, and its message; the last answer about this file
    .  the end; the last answer about this file

When the pipe breaks, the exit status of the process gives the reason.
"""

from __future__ import annotations

import atexit
import faulthandler
import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from wavegen.audio.containers import Part

COMMAND = [sys.executable, "-P", __file__]
REQUEST = struct.Struct("<II")
ANSWER = struct.Struct("<cI")
ANSWER_SECONDS = 60.0  # for opening a file, or for 1.5 seconds of stereo: a decoder that takes longer hangs
HUNG = 1  # exit status of a process that faulthandler stops
MEMORY_BYTES = 2 << 30  # of addresses: headers lie about what they need
PIPE_BYTES = 1 << 20  # the decoder may be ahead by this much: a block and more
ENDLESS = 1 << 50  # bytes, more than a file has
TAG_BYTES = 128  # of an ID3v1 tag at the end of an MP3
MOST_LEFT_OVER = 4096  # bytes of an MP3 behind its last frame: two frames and a little
UNSET = b"\xff\xff\xff\xff"  # no number: a sample that was not decoded


class DecoderError(Exception):
    """The decoder refused a file.

    Args:
        text: the reason.
        code: libsndfile's error number, if it has one.
        lasting: it would refuse the file again.
    """

    def __init__(self, text: str, code: int | None = None, lasting: bool = True) -> None:
        super().__init__(text)
        self.code, self.lasting = code, lasting


class Decoder:
    """A process that decodes one file after the other.

    Attributes:
        is_idle: it has given the last answer about a file, and can decode another one.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [*COMMAND, str(ANSWER_SECONDS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # decoders print much about a damaged file
            pipesize=PIPE_BYTES,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,  # the terminal's Ctrl-C does not reach it: it ends with this process
        )
        self.is_idle = True

    def decode(
        self, path: Path, n_values: int, parts: Sequence[Part] = ()
    ) -> tuple[dict[str, Any], Iterator[npt.NDArray[np.float32]]]:
        """Open a file.

        Args:
            path: of the file.
            n_values: samples of all channels together in a block; 0 reads the header alone.
            parts: of the file, which are decoded one after the other; none for the file as it is.

        Returns:
            The header, as ``header_of``; and an iterator of blocks of interleaved samples, decoded on demand.

        Raises:
            DecoderError: the file cannot be opened, or (while iterating) it is damaged.
        """
        listed = [(part.head.decode("latin-1"), *part[1:]) for part in parts]
        asked = json.dumps([str(path.absolute()), listed]).encode()
        assert self._process.stdin is not None
        self.is_idle = False
        with suppress(BrokenPipeError):  # nothing will be received either
            self._process.stdin.write(REQUEST.pack(n_values, len(asked)) + asked)
            self._process.stdin.flush()
        _, header = self._receive()
        samples = self._samples()
        if not n_values:
            next(samples, None)  # the end
        return json.loads(header), samples

    def _samples(self) -> Iterator[npt.NDArray[np.float32]]:
        import numpy as np

        while (answer := self._receive())[0] != b".":
            yield np.frombuffer(answer[1], np.float32)

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _receive(self) -> tuple[bytes, bytearray]:
        """Read the next answer.

        Raises:
            DecoderError: the answer is an error, or the process has ended.
        """
        kind, n = ANSWER.unpack(self._receive_bytes(ANSWER.size))
        content = self._receive_bytes(n)
        self.is_idle = kind in b".e"
        if kind == b"e":
            raise DecoderError(**json.loads(content))
        return kind, content

    def _receive_bytes(self, n: int) -> bytearray:
        assert self._process.stdout is not None
        content = bytearray(n)
        if self._process.stdout.readinto(content) < n:  # type: ignore[attr-defined]
            raise self._describe_exit()
        return content

    def _describe_exit(self) -> DecoderError:
        code = self._process.wait()
        if sys.platform != "win32" and code == -signal.SIGKILL:  # sent by the system, not caused by the file
            return DecoderError("the decoder was killed, perhaps for lack of memory", lasting=False)
        if code == HUNG:
            return DecoderError(f"the decoder hung on it and was stopped after {ANSWER_SECONDS:g} s")
        if code < 0:
            return DecoderError(f"it crashes the decoder, {signal.Signals(-code).name}")
        return DecoderError(f"the decoder ended with exit code {code}")


_idle: list[Decoder] = []
_parents: list[Decoder] = []


@contextmanager
def acquire_decoder() -> Iterator[Decoder]:
    """Acquire a decoder for one file: an idle one, or a new one. It ends here if the file was not read to its end."""
    try:
        decoder = _idle.pop()
    except IndexError:
        decoder = Decoder()
    try:
        yield decoder
    finally:
        if decoder.is_idle:
            _idle.append(decoder)
        else:
            decoder.end()


def shut_down_decoders() -> None:
    """End the idle decoder processes."""
    with suppress(IndexError):
        while True:
            _idle.pop().end()


def _forget_decoders() -> None:
    """In a forked process, leave the decoders to the parent; in a list, for Popen's destructor polls the process."""
    global _idle, _parents
    _parents, _idle = _idle, []


# --- the decoder process -------------------------------------------------------------------------------------------


def main() -> None:
    """Answer requests until the pipe is closed."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else ANSWER_SECONDS
    if sys.platform != "win32":
        import resource

        for what, most in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_AS, MEMORY_BYTES)):
            soft, hard = resource.getrlimit(what)
            with suppress(OSError, ValueError):  # where the system allows it
                resource.setrlimit(what, (most if soft == resource.RLIM_INFINITY else min(soft, most), hard))
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    while len(request := requests.read(REQUEST.size)) == REQUEST.size:
        n_values, length = REQUEST.unpack(request)
        steps = answers_about(requests.read(length), n_values)
        while True:
            faulthandler.dump_traceback_later(seconds, exit=True)  # ends the process, wherever it hangs
            answer, content = next(steps, (b"", b""))
            faulthandler.cancel_dump_traceback_later()
            if not answer:
                break
            answers.write(ANSWER.pack(answer, len(content)))
            answers.write(content)
        answers.flush()


def answers_about(request: bytes, n_values: int) -> Iterator[tuple[bytes, bytes | memoryview]]:
    """Yield the answers to one request; with 0 values the header alone."""
    try:
        path, parts = json.loads(request)
        whole = None
        for source in sources_of(path, parts, n_values > 0):
            with source:
                header = header_of(source)
                if whole is None:
                    whole, frames = header, header["frames"]
                    with suppress(Exception):  # of a later part: it fails where it is decoded
                        for part in parts[1:]:
                            for each in map(header_of, sources_of(path, [part], False)):
                                frames += each["frames"] * whole["rate_hz"] // each["rate_hz"]
                    yield b"h", json.dumps({**header, "frames": frames}).encode()
                if any(header[name] != whole[name] for name in ("rate_hz", "channels")):
                    text = f"what follows has {header['rate_hz']:,} Hz and {header['channels']} channels"
                    yield b"e", json.dumps({"code": -1, "text": text}).encode()
                    return
                if not n_values:
                    break
                yield from blocks_of(source, n_values)
    except Exception as error:
        text = getattr(error, "error_string", None) or f"{type(error).__name__}: {error}"
        yield b"e", json.dumps({"code": getattr(error, "code", None), "text": text}).encode()
    else:
        yield b".", b""


def sources_of(path: str, parts: list[list[Any]], go_on: bool) -> Iterator[Any]:
    """Open the file, or its parts one after the other; with ``go_on`` those too that follow an endless part."""
    if not parts:
        yield open_forward(path if sys.platform == "win32" else os.fsencode(path))  # names that are no UTF-8
    for head, start, stop, is_endless in parts:
        with open(path, "rb") as file:  # noqa: PTH123 (a Path takes longer to import)
            part = PartOfFile(file, head.encode("latin-1"), start, stop, is_endless)
            yield open_forward(part)
            while is_endless and go_on and part.is_followed():
                part = PartOfFile(file, b"", part.start + part.read_to, stop, is_endless)
                yield open_forward(part)  # one that cannot be opened is reported: what follows is lost


def blocks_of(source: Any, n_values: int) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the samples of an open file, those before an error too."""
    frame = 4 * source.channels
    unset = UNSET * source.channels * max(1, n_values // source.channels)
    block = bytearray(unset)
    while True:
        block[:] = unset
        try:
            count = source.buffer_read_into(block, dtype="float32")
        except Exception:
            whole = len(block.rstrip(UNSET)) // frame  # soundfile drops their number
            if whole:
                yield b"s", memoryview(block)[: whole * frame]
            raise
        if not count:
            break
        yield b"s", memoryview(block)[: count * frame]


class PartOfFile:
    """A part of a file with another header, as a file for soundfile.

    Args:
        file: open.
        head, start, stop, is_endless: as ``wavegen.audio.containers.Part``.

    Attributes:
        read_to: the end of what was read so far.
    """

    def __init__(self, file: Any, head: bytes, start: int, stop: int, is_endless: bool) -> None:
        self.file, self.head, self.start, self.stop, self.is_endless = file, head, start, stop, is_endless
        self.name, self.at, self.read_to = file.name, 0, 0
        # Where the size of an MP3 is known, libsndfile guesses its length from that of the first frame and stops there.
        self.size = ENDLESS if is_endless else len(head) + stop - start

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move; an offset counts from the start, from here, or from the end."""
        self.at = offset + (0, self.at, self.size)[whence]
        return self.at

    def tell(self) -> int:
        """Return the offset."""
        return self.at

    def readinto(self, block: Any) -> int:
        """Read as much of a block as there is."""
        n, at = len(block), max(0, self.at)
        content = self.head[at : at + n]
        if len(content) < n:
            offset = min(self.stop, self.start + max(0, at - len(self.head)))
            self.file.seek(offset)
            content += self.file.read(min(n - len(content), self.stop - offset))
            self.read_to = max(self.read_to, at + len(content) if content else 0)
        if self.is_endless and at >= ENDLESS - TAG_BYTES:
            content = bytes(min(n, ENDLESS - at))  # a tag would be there
        block[: len(content)] = content
        self.at = at + len(content)
        return len(content)

    def is_followed(self) -> bool:
        """Return whether another stream of MP3 begins where reading ended."""
        at = self.start + self.read_to
        self.file.seek(at)
        if (begin := self.file.read(TAG_BYTES + 4)).startswith(b"TAG"):
            begin, self.read_to = begin[TAG_BYTES:], self.read_to + TAG_BYTES
        return self.stop - at > MOST_LEFT_OVER and (begin[:3] == b"ID3" or begin[:2] >= b"\xff\xe0")


def open_forward(path: str | bytes | PartOfFile) -> Any:
    """Open a file, or a part of one, as a soundfile.SoundFile that is read from front to back."""
    import soundfile

    class ForwardOnly(soundfile.SoundFile):  # type: ignore[misc]
        """Soundfile seeks after each block, and fails at the end of a FLAC whose header knows no length."""

        def seekable(self) -> bool:
            return False

    return ForwardOnly(path)


def header_of(source: Any) -> dict[str, Any]:
    """Return an open file's header."""
    return {
        "rate_hz": source.samplerate,
        "channels": source.channels,
        "frames": source.frames,
        "container": source.format,
        "encoding": source.subtype,
        "comment": source.comment,
    }


if __name__ == "__main__":
    try:
        main()
    except Exception:  # Python's own exit status for it is that of a hanging decoder
        sys.exit(HUNG + 1)
else:
    atexit.register(shut_down_decoders)
    if sys.platform != "win32":
        os.register_at_fork(after_in_child=_forget_decoders)
