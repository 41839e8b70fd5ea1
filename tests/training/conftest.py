"""Fixtures of tests of whole trainings."""

import pytest

from wavegen.training.progress import Interrupted, Observer


@pytest.fixture
def stop_after():
    """Interrupt a training as by Ctrl-C after a number of steps."""

    def stop(training, step):
        class Stop(Observer):
            def on_step(self, entry):
                if entry["step"] == step:
                    training.stop_request.signal_number = 2

        training.observers = [Stop()]
        with pytest.raises(Interrupted):
            training.fit()

    return stop
