"""Decode audio in processes of their own: a file that crashes the decoder, or stops it, is a file with a reason."""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wavegen.audio.decoder_process import ANSWER, ANSWER_SECONDS, REQUEST

COMMAND = [sys.executable, "-P", str(Path(__file__).with_name("decoder_process.py"))]
PIPE_BYTES = 1 << 20  # the decoder may be ahead by this much: a block and more
MOST_LEFT = 20  # answers that are not wanted any more, before it is quicker to start another process

Samples = npt.NDArray[np.float32]


class DecoderError(Exception):
    """The decoder refused a file.

    Args:
        text: why.
        code: libsndfile's number of the error, where it has one.
        lasting: whether it would refuse the file again.
    """

    def __init__(self, text: str, code: int | None = None, lasting: bool = True) -> None:
        super().__init__(text)
        self.code, self.lasting = code, lasting


class Decoder:
    """One process that decodes one file after the other."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [*COMMAND, str(ANSWER_SECONDS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # decoders have much to say of a damaged file
            pipesize=PIPE_BYTES,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,  # the terminal's Ctrl-C is not for it: it ends with this process
        )
        self._done = True  # with the last file
        self._in_step = True  # no answer is read in part

    def decode(self, path: Path, n_values: int) -> tuple[dict[str, Any], Iterator[Samples]]:
        """Open a file.

        Args:
            path: where it is.
            n_values: samples of all channels together that are decoded at once; 0 reads the header alone.

        Returns:
            What the header says, as `decoder_process.header_of`; and, as they are decoded, blocks of samples of all
            channels, interleaved.

        Raises:
            DecoderError: it cannot be opened, or (while iterating) it is damaged.
        """
        where = os.fsencode(path.absolute())
        assert self._process.stdin is not None
        self._done = self._in_step = False
        with suppress(BrokenPipeError):  # nothing will be received either
            self._process.stdin.write(REQUEST.pack(b"D" if n_values else b"H", n_values, len(where)) + where)
            self._process.stdin.flush()
        self._in_step = True
        _, header = self._receive()
        return json.loads(header), self._samples()

    def _samples(self) -> Iterator[Samples]:
        while (answer := self._receive())[0] != b".":
            yield np.frombuffer(answer[1], np.float32)

    def finish(self) -> bool:
        """Leave the file; returns whether the process can be used for another."""
        with suppress(DecoderError):
            for _ in range(MOST_LEFT):
                if self._done or not self._in_step:
                    break
                self._receive()
        return self._done and self._in_step

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _receive(self) -> tuple[bytes, bytearray]:
        """The next answer.

        Raises:
            DecoderError: it is that the file is damaged, or there is none.
        """
        self._in_step = False
        kind, n = ANSWER.unpack(self._receive_bytes(ANSWER.size))
        content = self._receive_bytes(n)
        self._in_step, self._done = True, kind in b".e"
        if kind == b"e":
            raise DecoderError(**json.loads(content))
        return kind, content

    def _receive_bytes(self, n: int) -> bytearray:
        assert self._process.stdout is not None
        content = bytearray(n)
        if self._process.stdout.readinto(content) < n:  # type: ignore[attr-defined]
            raise self._what_happened()
        return content

    def _what_happened(self) -> DecoderError:
        code = self._process.wait()
        if code == -signal.SIGKILL:  # nothing that it does to itself
            return DecoderError("the decoder was killed, perhaps for want of memory", lasting=False)
        if code == -signal.SIGALRM:
            return DecoderError(f"the decoder got stuck in it and was stopped after {ANSWER_SECONDS:g} s")
        if code < 0:
            return DecoderError(f"it made the decoder crash, {signal.Signals(-code).name}")
        return DecoderError(f"the decoder ended with exit code {code}")


_idle: list[Decoder] = []
_parents: list[Decoder] = []
_lock = threading.Lock()


@contextmanager
def borrow_decoder() -> Iterator[Decoder]:
    """A decoder for one file; afterwards it waits for the next one."""
    with _lock:
        decoder = _idle.pop() if _idle else None
    decoder = decoder or Decoder()
    usable = False
    try:
        try:
            yield decoder
        finally:
            usable = decoder.finish()
    finally:
        if usable:
            with _lock:
                _idle.append(decoder)
        else:
            decoder.end()


def end_decoders() -> None:
    """End the processes that wait for a file: there will be none for a while."""
    with _lock:
        ended = list(_idle)
        _idle.clear()
    for decoder in ended:
        decoder.end()


def _forget_decoders() -> None:
    """In a forked process: they are the parent's, and an object that is dropped would look after its process."""
    global _idle, _lock, _parents
    _parents, _idle, _lock = _idle, [], threading.Lock()


atexit.register(end_decoders)
os.register_at_fork(after_in_child=_forget_decoders)
