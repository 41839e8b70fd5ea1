"""wavegen: train a WaveNet on a folder of recordings and generate new raw audio from it.

    import soundfile
    import wavegen

    model = wavegen.load("voice")         # or wavegen.train("my_recordings"), or wavegen.load("runs/my_recordings")
    clip = model.generate(seconds=2, temperature=1.03)[0]          # (T,) float32 in [-1, 1]
    soundfile.write("new.wav", clip, model.sample_rate_hz)

Importing the package is light; torch is imported when one of its names is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wavegen.api import TrainedModel, load, train
    from wavegen.config import Config, load_config
    from wavegen.errors import WavegenError

__all__ = ["Config", "TrainedModel", "WavegenError", "load", "load_config", "train"]
__version__ = "0.1.0"

_HOMES = {"Config": "config", "load_config": "config", "WavegenError": "errors"}  # of the others: api


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'wavegen' has no attribute '{name}'")
    return getattr(import_module(f"wavegen.{_HOMES.get(name, 'api')}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
