"""Validation: the loss of held-out clips, computed by all processes of a training together."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NamedTuple

from wavegen.model.building import load_weights
from wavegen.model.layers import folded
from wavegen.model.network import Network
from wavegen.sampling.engines import COMPILED_DRAWS, PRECISIONS
from wavegen.sampling.engines.packing import rounded_weights
from wavegen.training.distributed import Group
from wavegen.training.progress import Interrupted, StopRequest
from wavegen.training.task import Task


class Validation(NamedTuple):
    """The result of a validation.

    Attributes:
        figure: the mean loss of a prediction.
        clips: that were scored.
        facts: for ``metrics.jsonl``.
    """

    figure: float
    clips: Sequence[Any]
    facts: dict[str, Any]


@dataclass(frozen=True)
class Validator:
    """Score held-out clips, of which each process takes its share.

    Args:
        task: that is trained on.
        group: the processes that share the work; all of them have to call each method.
        stop_request: ends the scoring on all processes when one is asked to stop.
        on_progress: called with (predictions scored, predictions in all) of this process.
    """

    task: Task[Any]
    group: Group
    stop_request: StopRequest
    on_progress: Callable[[int, int], None]

    def validate(self, network: Network, seconds: float | None) -> Validation:
        """Score a network and the trivial baselines on the same held-out audio.

        Args:
            network: with the weights to score.
            seconds: of held-out audio to score; None for all.

        Raises:
            Interrupted: a process was asked to stop.
        """
        clips = self.task.validation_clips(seconds)
        figure = self.figure(network, clips)
        # counting pairs and predicting linearly is cheap beside the network: rank 0 does it alone
        facts: dict[str, Any] = {"validation_loss": figure, "loss_unit": self.task.loss_unit.name}
        if self.group.is_main:
            facts["baselines"] = self.task.baselines(clips)
        return Validation(figure, clips, facts | self.task.validation_length(clips))

    def figure(self, network: Network, clips: Sequence[Any]) -> float:
        """Return a network's mean loss; it does not depend on the number of processes.

        Raises:
            Interrupted: a process was asked to stop.
        """
        # clip i goes to rank i mod size: clips in order of content, long and short ones spread over the ranks
        own = clips[self.group.rank :: self.group.size]
        total, done = sum(map(self.task.n_predictions, own)), 0

        def scored(n_predictions: int) -> None:
            nonlocal done
            done += n_predictions
            self.on_progress(done, total)
            self.stop_request.check()

        costs: list[float] | None = None
        with suppress(Interrupted):  # of this process; all stop together, below
            costs = self.task.summed_losses(network, own, scored)
        # added in the order of the clips, so that the sum is rounded the same on any number of ranks
        by_clip = [0.0] * len(clips)
        for rank, theirs in enumerate(self.group.gather(costs)):
            if theirs is None:
                raise Interrupted(self.stop_request.signal_number or signal.SIGTERM)
            by_clip[rank :: self.group.size] = theirs  # the inverse of the split above
        return sum(by_clip) / sum(map(self.task.n_predictions, clips))

    def precision_costs(self, network: Network, clips: Sequence[Any], figure: float) -> dict[str, float]:
        """Return the bits/sample that each lower precision of sampling adds.

        Args:
            network: in float32.
            clips: to score.
            figure: the network's on these clips.

        Raises:
            Interrupted: a process was asked to stop.
        """
        return {name: self.figure(rounded, clips) - figure for name, rounded in in_lower_precisions(network)}


def in_lower_precisions(network: Network) -> Iterator[tuple[str, Network]]:
    """Yield a network in each lower precision; only the numba engine has some."""
    if not network.runs_fused or network.distribution.kind not in COMPILED_DRAWS:
        return
    exact = folded(network)  # it is plain weights that are rounded
    weights = exact.arrays()
    for precision in PRECISIONS:
        if precision != "float32":
            rounded = deepcopy(exact)
            load_weights(rounded, rounded_weights(weights, precision))
            yield precision, rounded
