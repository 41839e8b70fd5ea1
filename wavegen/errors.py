"""All errors that are reported to users.

    WavegenError            exit code 1: the work failed at run time
     |- AudioError          a file cannot be read as audio, or written
     |- DataError           a folder gives nothing to train on or to score
     |- CheckpointError     a checkpoint is missing, damaged or of another version
     |- ModelError          weights or logits are not finite, or do not fit together
     |- TrainingError       training cannot continue
     `- UsageError          exit code 2: the call itself is wrong
         |- ParameterError  a parameter is out of its range, or not for this model; carries its name
         `- ConfigError     a configuration is wrong; carries every problem found

Messages are one line: where, what was expected, what was found, what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence


class WavegenError(Exception):
    """Base of all errors that wavegen raises on purpose; the command line prints it without a traceback.

    The text names parameters as Python does. ``worded`` gives it with other names: those of the command line's options.

    Args:
        text: in which the last ``{name}`` stands for each parameter of `give`; a path before it may hold one as well.
        give: parameters, each with a value that would solve the problem.
    """

    exit_code = 1

    def __init__(self, text: str, give: Mapping[str, object] | None = None) -> None:
        super().__init__(text)
        self.text, self.give = text, give or {}

    def __str__(self) -> str:
        return self.worded(lambda name, value: name if value is None else f"{name}={value!r}")

    def worded(self, name: Callable[[str, object], str]) -> str:
        """Return the message; ``name`` writes a parameter and its value, or a parameter alone where that is None."""
        text = self.text
        for parameter, value in self.give.items():
            before, _, behind = text.rpartition(f"{{{parameter}}}")
            text = before + name(parameter, value) + behind
        return text


class AudioError(WavegenError):
    """A file cannot be read as audio, or audio cannot be written.

    Args:
        text: as all messages.
        lasting: whether the error recurs until the file changes.
    """

    def __init__(self, text: str, lasting: bool = True) -> None:
        super().__init__(text)
        self.lasting = lasting


class DataError(WavegenError):
    """A folder or a list of files gives nothing to train on or to score."""


class CheckpointError(WavegenError):
    """A checkpoint is missing, damaged, or of a version that this wavegen does not read."""


class ModelError(WavegenError):
    """A model's weights or outputs are not finite, or do not fit its configuration."""


class TrainingError(WavegenError):
    """Training cannot continue."""


class UsageError(WavegenError):
    """The call is wrong: an option's value, a combination, a missing or existing path."""

    exit_code = 2


class ParameterError(UsageError):
    """A parameter is out of its range, or not for this model: ``top_k: expected ..., found ...``.

    Args:
        parameter: its name.
        problem: what was expected, and what was found.
        value: the parameter's, where the problem is that very value.
        give: as all errors.
    """

    def __init__(
        self, parameter: str, problem: str, value: object = None, give: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(problem, give)
        self.parameter, self.problem, self.value = parameter, problem, value
        self.args = (parameter, problem, value, give)  # with which another process makes it again

    def worded(self, name: Callable[[str, object], str]) -> str:
        """Return the message; see ``WavegenError``."""
        remedy = " or ".join(name(*each) for each in self.give.items())
        return f"{name(self.parameter, self.value)}: {self.problem}" + (f"; give {remedy}" if remedy else "")


class ConfigError(UsageError):
    """A configuration is wrong.

    Args:
        problems: one line for each problem, all that were found.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)
