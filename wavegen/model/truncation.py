"""What is done to a distribution before a draw."""

from __future__ import annotations

from dataclasses import dataclass

from wavegen.errors import ParameterError

MOST_CLASSES = 1 << 16  # of any model


@dataclass(frozen=True)
class Truncation:
    """What is done to the distribution before a draw: temperature first, then top-k, then top-p.

    Args:
        temperature: logits are divided by it, and a mixture's scales are multiplied by it; 0 takes the likeliest class,
            or the mean of the likeliest component.
        top_k: only the k likeliest classes; None keeps all.
        top_p: only the likeliest classes that together reach this probability; None keeps all.

    Among equals the lower class is kept first.

    Raises:
        ParameterError: a value is out of its range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ParameterError("temperature", f"expected a number, 0 or more, found {self.temperature:g}")
        if self.top_k is not None and not 1 <= self.top_k <= MOST_CLASSES:
            raise ParameterError(
                "top_k", f"expected a whole number, 1 or more, up to {MOST_CLASSES}, found {self.top_k}"
            )
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ParameterError("top_p", f"expected a number above 0 and at most 1, found {self.top_p:g}")
