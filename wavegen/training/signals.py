"""Signals as requests that the training loop grants at its next safe point: to stop, or to save and continue."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Interrupted(Exception):  # noqa: N818 (nothing went wrong)
    """Training stopped because it was asked to; its state is saved.

    Args:
        signal_number: of the signal that asked.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.exit_code = 128 + signal_number


class StopRequest:
    """While entered, notes signals instead of dying of them.

    SIGINT and SIGTERM ask to stop, and a second Ctrl-C kills as usual; SIGUSR1 asks to save and continue.

    Attributes:
        signal_number: of the signal that asked to stop; None without one.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._save_requested = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        # Python allows handlers in the main thread only; elsewhere (a notebook's worker) signals act as before
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._on_signal)
            self._previous[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, self._on_save_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Stop here if a signal asked for it.

        Raises:
            Interrupted: a signal came.
        """
        if self.signal_number is not None:
            raise Interrupted(self.signal_number)

    def take_save_request(self) -> bool:
        """Return whether SIGUSR1 came since the last call."""
        requested, self._save_requested = self._save_requested, False
        return requested

    def _on_save_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 (signal's signature)
        self._save_requested = True

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 (signal's signature)
        self.signal_number = number
        # from now on Ctrl-C does what it did before: whoever presses it twice does not want to wait
        signal.signal(signal.SIGINT, self._previous.get(signal.SIGINT, signal.default_int_handler))
