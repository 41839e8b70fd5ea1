"""wavegen: train a WaveNet on a folder of recordings and generate new raw audio from it."""

__version__ = "0.1.0"
