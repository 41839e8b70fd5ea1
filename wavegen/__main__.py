"""The entry point of ``wavegen`` and ``python -m wavegen``."""

import os
import signal
import sys
from types import FrameType


class Stopped(SystemExit):
    """Raised by SIGINT and SIGTERM, so that context managers clean up on the way out."""


def main() -> None:
    """Run the command line."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    sys.unraisablehook = _on_unraisable
    _prepare_streams()
    # OpenMP threads that wait for each other should sleep, not spin. Spinning is a little faster on an idle machine and
    # several times slower on a busy one: a spinning thread keeps the core from the thread that it waits for. OpenMP
    # reads this once, before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    from wavegen.cli import app

    try:
        try:
            app(prog_name="wavegen")
        finally:
            sys.stdout.flush()  # here, because the interpreter reports errors of its own last flush in another style
    except BaseException as error:
        if stop := _stop_behind(error):
            _leave(int(str(stop.code)))
        if isinstance(error, OSError):  # of the flush, or of --help; commands report their own
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the rest of the buffer is discarded
            sys.exit(0 if isinstance(error, BrokenPipeError) else f"error: {error.strerror}")
        raise
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):  # the work is done: a late signal must not change the exit code
            signal.signal(number, signal.SIG_IGN)


def _prepare_streams() -> None:
    """Replace closed streams by the null device, and escape characters that a terminal's encoding lacks."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))
        else:
            stream.reconfigure(errors="backslashreplace")


def _stop(number: int, frame: FrameType | None) -> None:
    """Exit at once during imports, when there is nothing to clean up; otherwise raise ``Stopped``."""
    signal.signal(number, signal.SIG_DFL)  # a second one kills
    if _importing(frame):
        _leave(128 + number)
    raise Stopped(128 + number)


def _on_unraisable(ignored: "sys.UnraisableHookArgs") -> None:
    """Exit at once where Python would ignore ``Stopped``: in an object's destructor."""
    if isinstance(ignored.exc_value, Stopped):
        _leave(int(str(ignored.exc_value.code)))
    sys.__unraisablehook__(ignored)


def _stop_behind(error: BaseException) -> Stopped | None:
    """Return the ``Stopped`` that caused an error, if any: interrupted code may raise another error on its way out."""
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
    """Exit without the interpreter's shutdown, which a second signal could disturb."""
    os.write(2, b"stopped\n")
    os._exit(exit_code)


if __name__ == "__main__":
    main()
