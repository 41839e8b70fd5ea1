"""Score a clip with the baselines, and check what that has imported."""

import sys

import numpy

from wavegen.audio.quantize import Quantizer
from wavegen.evaluation.baselines import baseline_bits, fit_baselines

assert not any(name.split(".")[0] == "scipy" for name in sys.modules), "scipy at import"
clip = numpy.arange(600).astype(numpy.uint8)
baseline_bits(fit_baselines([clip], 256), [clip], Quantizer())
assert "torch" not in sys.modules
