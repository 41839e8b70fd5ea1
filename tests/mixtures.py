"""All mixtures that wavegen has; a new subclass of ``Mixture`` in the same module joins these tests by itself."""

from typing import get_args

from wavegen.config.schema import OutputKind
from wavegen.model.building import DISTRIBUTIONS
from wavegen.model.outputs import Mixture
from wavegen.sampling.engines import COMPILED_DRAWS, ENGINES

MIXTURES = sorted(Mixture.__subclasses__(), key=lambda each: each.kind)
MIXTURE_KINDS = [kind for kind in get_args(OutputKind) if kind.endswith("_mixture")]
assert {each.kind for each in MIXTURES} == set(MIXTURE_KINDS)
assert set(MIXTURE_KINDS) <= set(DISTRIBUTIONS)


def engines_of(kind):
    """The engines that draw from an output of this kind, the reference first."""
    return [name for name in reversed(ENGINES) if name != "numba" or kind in COMPILED_DRAWS]
