"""The progress of a training, its callbacks, and the signals that stop it at its next safe point."""

from __future__ import annotations

import signal
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass
class Progress:
    """The progress of a training; stored in its checkpoints under these names.

    Attributes:
        step: steps made, skipped ones included.
        updates: optimizer updates made.
        targets: predictions trained on.
        seconds: of training, interruptions left out.
        best_loss: lowest validation loss so far.
        best_step: at which step that was.
        validation: the last validation's line of ``metrics.jsonl``.
        precision_costs: what lower precisions of these averaged weights cost, in bits/sample; measured at the end.
        processes: that trained together last.
        recordings: the profile of the training clips (``wavegen.audio.levels.RecordingProfile``); None for series.
    """

    step: int = 0
    updates: int = 0
    targets: int = 0
    seconds: float = 0.0
    best_loss: float | None = None
    best_step: int | None = None
    validation: dict[str, Any] = field(default_factory=dict)
    precision_costs: dict[str, float] = field(default_factory=dict)
    processes: int = 1
    recordings: dict[str, Any] | None = None


class Observer:
    """Callbacks of a training, which do nothing; a subclass overrides those that it needs."""

    def on_step(self, entry: dict[str, Any]) -> None:
        """Receive a step's line of ``metrics.jsonl``."""

    def on_validation(self, entry: dict[str, Any]) -> None:
        """Receive a validation's line of ``metrics.jsonl``."""

    def on_audition(self, step: int, path: Path, waveform: npt.NDArray[np.float32], sample_rate_hz: int) -> None:
        """Receive an audition, (T,) in [-1, 1], before it is written to the path."""

    def on_wait(self, what: str, done: int, total: int) -> None:
        """Receive the progress of a validation or an audition."""

    def on_notice(self, text: str) -> None:
        """Receive a message for the user."""


class Interrupted(Exception):  # noqa: N818 (nothing went wrong)
    """Training stopped by a signal; its state is saved.

    Args:
        signal_number: of that signal.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.exit_code = 128 + signal_number


class StopRequest:
    """A context in which signals are noted instead of ending the process.

    SIGINT and SIGTERM ask to stop, and a second Ctrl-C kills as usual; SIGUSR1 asks to save and continue.

    Attributes:
        signal_number: of the signal that requested the stop; None without one.
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
            if sys.platform != "win32":
                self._previous[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, self._on_save_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise if a signal requested a stop.

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
        # a second Ctrl-C has its usual effect: the user does not want to wait
        signal.signal(signal.SIGINT, self._previous.get(signal.SIGINT, signal.default_int_handler))
