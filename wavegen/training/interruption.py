"""Signals as wishes that the training loop grants at its next safe point: to stop, or to save and go on."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Interrupted(Exception):  # noqa: N818 (nothing went wrong)
    """Training stopped because it was asked to; its state is saved.

    Args:
        signal_number: what asked.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.exit_code = 128 + signal_number


class Interruption:
    """While entered, remembers signals instead of dying of them.

    SIGINT and SIGTERM ask to stop, and a second Ctrl-C kills as usual; SIGUSR1 asks to save and go on.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._save_wanted = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._remember)
            self._previous[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, self._remember_to_save)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Stop here if asked to.

        Raises:
            Interrupted: a signal came.
        """
        if self.signal_number is not None:
            raise Interrupted(self.signal_number)

    def save_wanted(self) -> bool:
        """Whether SIGUSR1 came since the last call."""
        wanted, self._save_wanted = self._save_wanted, False
        return wanted

    def _remember_to_save(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 (signal's signature)
        self._save_wanted = True

    def _remember(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 (signal's signature)
        self.signal_number = number
        signal.signal(signal.SIGINT, self._previous.get(signal.SIGINT, signal.default_int_handler))
