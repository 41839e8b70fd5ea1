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
    from wavegen.api import TrainedModel as TrainedModel
    from wavegen.api import load as load
    from wavegen.api import train as train
    from wavegen.config import Config as Config
    from wavegen.config import load_config as load_config
    from wavegen.errors import WavegenError as WavegenError

__version__ = "0.1.0"

_HOMES = {
    "Config": "config",
    "TrainedModel": "api",
    "WavegenError": "errors",
    "load": "api",
    "load_config": "config",
    "train": "api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'wavegen' has no attribute '{name}'")
    return getattr(import_module(f"wavegen.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*_HOMES, "__version__"]
