"""A process that decodes audio files, so that one that crashes or stops the decoder harms nothing else.

Run by its path, with nothing of wavegen imported: it starts in a quarter of a second. A request on standard input is a
letter, a number and a path's length in four bytes each, and the path:

    H 0 path     what does its header say?
    D n path     decode it, n values at a time

Answers on standard output are a letter, the length of what follows, and that. They come as fast as they are taken:

    h  {"rate_hz", "channels", "frames", "container", "encoding"}
    s  float32 samples of all channels, interleaved; as often as there are some
    e  {"code", "text"}: libsndfile's number of the error, if it has one, and words; the last answer about this file
    .  the end; the last answer about this file

Whoever waits and hears nothing more knows from the exit status what happened.
"""

from __future__ import annotations

import json
import resource
import signal
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

REQUEST = struct.Struct("<cII")
ANSWER = struct.Struct("<cI")
ANSWER_SECONDS = 60.0  # for opening a file, or for 1.5 seconds of stereo: a decoder that takes longer is stuck
MEMORY_BYTES = 2 << 30  # of addresses: headers lie about what they need


def main() -> None:
    """Answer requests until there are no more."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else ANSWER_SECONDS
    limit(resource.RLIMIT_CORE, 0)
    limit(resource.RLIMIT_AS, MEMORY_BYTES)
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    while len(request := requests.read(REQUEST.size)) == REQUEST.size:
        kind, n_values, length = REQUEST.unpack(request)
        steps = answers_about(requests.read(length), n_values if kind == b"D" else 0)
        while True:
            signal.setitimer(signal.ITIMER_REAL, seconds)  # its signal kills, in whatever loop
            step = next(steps, None)
            signal.setitimer(signal.ITIMER_REAL, 0)
            if step is None:
                break
            answer, content = step
            answers.write(ANSWER.pack(answer, len(content)))
            answers.write(content)
        answers.flush()


def answers_about(path: bytes, n_values: int) -> Iterator[tuple[bytes, bytes | memoryview]]:
    """The answers to one request; with 0 values the header alone."""
    try:
        with open_forward(path) as source:
            yield b"h", json.dumps(header_of(source)).encode()
            n_frames = max(1, n_values // source.channels) if n_values else 0
            block = bytearray(4 * n_frames * source.channels)
            while n_frames and (count := source.buffer_read_into(block, dtype="float32")):
                yield b"s", memoryview(block)[: 4 * count * source.channels]
    except Exception as error:
        text = getattr(error, "error_string", None) or f"{type(error).__name__}: {error}"
        yield b"e", json.dumps({"code": getattr(error, "code", None), "text": text}).encode()
    else:
        yield b".", b""


def limit(what: int, most: int) -> None:
    """Lower one of this process's limits, where the system lets it."""
    soft, hard = resource.getrlimit(what)
    with suppress(OSError, ValueError):
        resource.setrlimit(what, (most if soft == resource.RLIM_INFINITY else min(soft, most), hard))


def open_forward(path: bytes) -> Any:
    """Open a file as a soundfile.SoundFile that is read front to back."""
    import soundfile

    class ForwardOnly(soundfile.SoundFile):  # type: ignore[misc]
        """Soundfile seeks after each block, and fails at the end of a FLAC whose header knows no length."""

        def seekable(self) -> bool:
            return False

    return ForwardOnly(path)


def header_of(source: Any) -> dict[str, Any]:
    """What the file's header says."""
    return {
        "rate_hz": source.samplerate,
        "channels": source.channels,
        "frames": source.frames,
        "container": source.format,
        "encoding": source.subtype,
    }


if __name__ == "__main__":
    main()
