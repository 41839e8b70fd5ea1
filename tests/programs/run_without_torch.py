"""Run the command line in an interpreter that cannot import torch."""

import sys

sys.modules["torch"] = None

from wavegen.__main__ import main  # noqa: E402 (torch is blocked first)

main()
