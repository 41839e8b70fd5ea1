"""Import the modules that are named, in this order."""

import importlib
import sys

for name in sys.argv[1:]:
    importlib.import_module(name)
