"""librosa, loaded by one process at a time."""

from __future__ import annotations

import contextlib
import tempfile
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType


@cache
def load_librosa(*parts: str) -> ModuleType:
    """Import librosa.

    As it is imported for the first time on a machine, numba compiles its functions into a cache. Two processes that do
    so at once leave parts of both there, and every later call of some functions ends in a segmentation fault.

    Args:
        parts: modules of it that have compiled functions and are needed: ``"core.pitch"``.
    """
    import filelock

    # for each user: another's lock cannot be opened, nor can the cache be written
    lock = filelock.FileLock(Path(tempfile.gettempdir()) / f"wavegen-{Path.home().name}-librosa.lock")
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            stack.enter_context(lock)
        for part in ("util.utils", *parts):
            import_module(f"librosa.{part}")
        return import_module("librosa")
