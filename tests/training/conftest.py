"""What the tests of whole trainings share."""

import pytest

from wavegen.training.progress import Interrupted, Observer


@pytest.fixture
def stop_after():
    """Let a training be interrupted as by Ctrl-C once it has made so many steps."""

    def stop(training, step):
        class Stop(Observer):
            def on_step(self, entry):
                if entry["step"] == step:
                    training.stop_request.signal_number = 2

        training.observers = [Stop()]
        with pytest.raises(Interrupted):
            training.fit()

    return stop
