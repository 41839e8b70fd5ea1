"""The command line's entry: ``wavegen`` and ``python -m wavegen``."""

import os
import signal
import sys
from types import FrameType


class Stopped(SystemExit):
    """A signal asked to stop; whatever was begun is tidied up on the way out."""


def main() -> None:
    """Run the command line."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    sys.unraisablehook = _stop_later
    _prepare_streams()
    # Threads of a parallel step that wait for each other shall sleep, not spin. Spinning is a little faster on a
    # machine that does nothing else, and several times slower on one that does: a spinning thread keeps the core
    # from the one that it waits for. OpenMP reads this once, before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    from wavegen.cli import app

    try:
        try:
            app(prog_name="wavegen")
        finally:
            sys.stdout.flush()  # the interpreter would report an error of its own flush in its own way
    except BaseException as error:
        if stop := _stop_behind(error):
            _leave(int(str(stop.code)))
        if isinstance(error, OSError):  # of the flush, or of --help; commands report their own
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what could not be written is not tried again
            sys.exit(0 if isinstance(error, BrokenPipeError) else f"error: {error.strerror}")
        raise
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):  # all is done: the exit code shall say so
            signal.signal(number, signal.SIG_IGN)


def _prepare_streams() -> None:
    """A closed stream goes nowhere; what a terminal's encoding has no character for is escaped."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))
        else:
            stream.reconfigure(errors="backslashreplace")


def _stop(number: int, frame: FrameType | None) -> None:
    """Stop at once while modules are imported, when there is nothing to tidy up; else by an exception."""
    signal.signal(number, signal.SIG_DFL)  # a second one kills
    if _importing(frame):
        _leave(128 + number)
    raise Stopped(128 + number)


def _stop_later(ignored: "sys.UnraisableHookArgs") -> None:
    """Stop in a moment if the signal came while an object was tidied away, where Python ignores exceptions."""
    stop = ignored.exc_value
    if not isinstance(stop, Stopped):
        sys.__unraisablehook__(ignored)
        return

    def stop_now(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (signal's signature)
        raise stop

    signal.signal(signal.SIGALRM, stop_now)
    signal.setitimer(signal.ITIMER_REAL, 0.01)


def _stop_behind(error: BaseException) -> Stopped | None:
    """The signal that an error came of, if one did: what it interrupts may fail, as a lock that is not held yet."""
    behind: BaseException | None = error
    while not (behind is None or isinstance(behind, Stopped)):
        behind = behind.__context__
    return behind


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name == "_find_and_load":
            return True
        frame = frame.f_back
    return False


def _leave(exit_code: int) -> None:
    """End without the interpreter's last rites, which a signal could disturb once more."""
    os.write(2, b"stopped\n")
    os._exit(exit_code)


if __name__ == "__main__":
    main()
