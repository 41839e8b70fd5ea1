"""Become another program: for tests that need an interpreter of its own, with the handle of a fork."""

import os
import sys

os.execv(sys.argv[1], sys.argv[1:])
