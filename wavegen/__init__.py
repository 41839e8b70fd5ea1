"""wavegen: train a WaveNet on a folder of recordings and generate new raw audio from it.

    import wavegen

    model = wavegen.train("my_recordings", wavegen.load_config("small", ["training.minutes=30"]))
    model = wavegen.load("runs/my_recordings")
    clip = model.generate(seconds=5, temperature=1.03)[0]        # (T,) float32 at model.sample_rate_hz

Importing the package is light; torch is imported when one of its names is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wavegen.config import Config as Config
    from wavegen.config import load_config as load_config
    from wavegen.errors import WavegenError as WavegenError
    from wavegen.trained import TrainedModel as TrainedModel
    from wavegen.trained import load as load
    from wavegen.trained import train as train

__version__ = "0.1.0"

_HOMES = {
    "Config": "config",
    "TrainedModel": "trained",
    "WavegenError": "errors",
    "load": "trained",
    "load_config": "config",
    "train": "trained",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'wavegen' has no attribute '{name}'")
    return getattr(import_module(f"wavegen.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*_HOMES, "__version__"]
