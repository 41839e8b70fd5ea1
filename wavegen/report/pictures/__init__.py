"""Pictures of everything that wavegen touches, as PNG files."""

from wavegen.report.pictures.audio import draw_audio
from wavegen.report.pictures.inspected import draw

__all__ = ["draw", "draw_audio"]
