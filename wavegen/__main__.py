"""The command line's entry: ``wavegen`` and ``python -m wavegen``."""

import os
import sys


def main() -> None:
    """Run the command line."""
    # Threads of a parallel step that wait for each other shall sleep, not spin. Spinning is a little faster on a
    # machine that does nothing else, and several times slower on one that does: a spinning thread keeps the core
    # from the one that it waits for. OpenMP reads this once, before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    from wavegen.cli import app

    try:
        app(prog_name="wavegen")
    except OSError as error:  # what --help meets; commands have words of their own
        sys.exit(f"error: {error.strerror}")


if __name__ == "__main__":
    main()
