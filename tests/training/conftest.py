"""What the tests of whole trainings share."""

from collections.abc import Callable
from typing import Any

import pytest

from wavegen.training.interruption import Interrupted
from wavegen.training.observer import Observer
from wavegen.training.trainer import Trainer


@pytest.fixture
def stop_after() -> Callable[[Trainer, int], None]:
    """Let a training be interrupted as by Ctrl-C once it has made so many steps."""

    def stop(training: Trainer, step: int) -> None:
        class Stop(Observer):
            def stepped(self, entry: dict[str, Any]) -> None:
                if entry["step"] == step:
                    training.interruption.signal_number = 2

        training.observers = [Stop()]
        with pytest.raises(Interrupted):
            training.fit()

    return stop
