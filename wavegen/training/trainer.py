"""The training loop: step, validate, audition, save; resumable at every step."""

from __future__ import annotations

import math
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
import torch

from wavegen.audio.write import AudioWriter
from wavegen.data.corpus import Corpus
from wavegen.data.windows import Batch
from wavegen.device import on_device, one_thread_each, torch_threads
from wavegen.errors import AudioError, CheckpointError, TrainingError
from wavegen.evaluation.scores import describe_gain, with_shuffled_frames
from wavegen.model.building import load_weights
from wavegen.model.layers import folded
from wavegen.model.network import Network
from wavegen.runs.checkpoint import Checkpoint
from wavegen.runs.run_folder import RunFolder
from wavegen.sampling.engines import COMPILED_DRAWS, PRECISIONS
from wavegen.sampling.engines.packing import rounded_weights
from wavegen.training.backends import build_backend
from wavegen.training.compute import explain_device_errors
from wavegen.training.plan import Plan
from wavegen.training.process_group import ALONE, Group, ProcessDied, RemoteError
from wavegen.training.progress import Interrupted, Observer, Progress, StopRequest
from wavegen.training.step import Launched, build_step, copied, schedule_factor
from wavegen.training.task import Task, task_type

# A single bad recording makes a few losses infinite. A network that has diverged does not come back.
LARGEST_NON_FINITE_STREAK = 20


class Trainer:
    """One training of one model on one corpus.

    Args:
        plan: all decisions of the training.
        corpus: training and validation clips.
        model: with its first weights, on the device.
        run: an existing folder.
        group: the processes that share the work.

    Attributes:
        observers: called with what happens; to be set before ``fit``.
    """

    def __init__(self, plan: Plan, corpus: Corpus[Any], model: Network, run: RunFolder, group: Group = ALONE) -> None:
        self.plan, self.config, self.settings = plan, plan.config, plan.config.training
        self.corpus, self.run = corpus, run
        self.observers: Sequence[Observer] = ()
        self.group = group
        self.model = model
        self.device = next(model.parameters()).device
        self.task: Task = task_type(self.config)(self.config, corpus)
        self.windows = self.task.windows(model)
        self.backend = build_backend(self.config, plan.compute, model, group)
        self.step = build_step(model, self.backend, self.settings, self._notice, group.size == 1)
        self.average = self.step.average
        self.launched, self._recorded_at = deque[Launched](), 0.0
        self.most_launched = 0 if self.device.type == "cpu" else 1  # a GPU computes while the step before is recorded
        self.progress = Progress(processes=group.size)
        self.stop_request = StopRequest()
        self._non_finite_streak = 0
        self._reported: set[str] = set()  # problems of observers

    # --- the loop ---------------------------------------------------------------------------------------------

    def fit(self) -> None:
        """Train until the last step.

        Raises:
            Interrupted: after Ctrl-C or SIGTERM; the state is saved.
            ProcessDied: another process of this training is gone; the state is saved.
            CheckpointError: the first or the last checkpoint, or that of an interruption, cannot be written.
            TrainingError: the loss was not finite many times in a row; the last good checkpoint stays.
        """
        threads, pool = torch_threads(self.plan.compute.threads), one_thread_each(1, "windows")
        with self.stop_request, threads, on_device(self.device), pool:
            try:
                if self.group.is_main:  # at every start: the recordings may be others
                    self.progress.recordings = self.task.recording_profile()
                if self.progress.step == 0:
                    self._save()  # so that a run can be resumed from its first moment on
                coming = pool.submit(self._batch, self.progress.step)
                while True:
                    with suppress(Interrupted):  # of this process; all stop together, below
                        self._run_scheduled()
                    self._check_stop_request()
                    if self.progress.step >= self.plan.steps:
                        break
                    batch, n_targets = coming.result()
                    coming = pool.submit(self._batch, self.progress.step + 1)  # while this one is trained on
                    self._step(batch, n_targets)
            except (Interrupted, ProcessDied):  # between two steps: the state is whole
                self._save()
                raise

    def _check_stop_request(self) -> None:
        """Save or stop if a signal asked any process for it; all ranks call this together."""
        own = self.stop_request
        stop_signal, save = self.group.all_reduce_max(own.signal_number or 0, int(own.take_save_request()))
        if save and self._try(self._save):
            self._notice(f"asked to save: saved at step {self.progress.step:,}")
        if stop_signal:
            raise Interrupted(stop_signal)

    def _batch(self, step: int) -> tuple[Batch, int]:
        """Return this process's windows of a step's batch, and the number of real targets in all of it.

        Window i of step s is window s batch_size + i of the stream on every rank, so resuming needs the step alone.
        """
        size = self.plan.compute.batch_size
        first, own = step * size, self.group.share(size)
        n_targets = self.windows.n_targets(first, size)
        if own:
            return self.windows.batch(first + own.start, len(own)), n_targets
        # more processes than windows: this one computes a window that does not count, as every rank has to all-reduce
        idle = self.windows.batch(first, 1)
        return Batch(idle.inputs, idle.targets, np.zeros_like(idle.is_real), idle.condition, first), n_targets

    def _step(self, batch: Batch, n_targets: int) -> None:
        """Launch one optimizer step on one batch, and record those that are done."""
        began, progress = time.perf_counter(), self.progress
        factor = schedule_factor(progress.step, self.settings, self.plan.steps)
        with explain_device_errors(self.device, f"step {progress.step + 1}"):
            # L = (1 / n_targets) sum of -ln p over the whole batch; the same on all ranks
            read = self.step(batch, max(1, n_targets), factor)
            progress.step += 1
            self.launched.append(Launched(progress.step, read, n_targets, factor * self.settings.learning_rate, began))
            self._record(self.most_launched)

    def _record(self, most_launched: int = 0) -> None:
        """Read and record launched steps, until no more than some are left."""
        while len(self.launched) > most_launched:
            self._record_step(self.launched.popleft())

    def _record_step(self, launched: Launched) -> None:
        progress, (loss, norm) = self.progress, launched.read()
        finite = math.isfinite(loss) and math.isfinite(norm)
        if finite:  # else it was skipped
            progress.updates += 1
            progress.targets += launched.n_targets
            progress.precision_costs = {}  # they were those of other weights
        before, self._recorded_at = self._recorded_at, time.perf_counter()
        seconds = self._recorded_at - max(launched.began, before)
        progress.seconds += seconds
        entry = {
            "step": launched.step,
            "train_loss": loss * self.task.loss_scale if finite else None,
            "loss_unit": self.task.loss_unit.name,
            "learning_rate": launched.rate,
            "gradient_norm": norm if finite else None,
            "targets_per_second": launched.n_targets / seconds,
            **self.task.trained_on(progress.targets),
            "seconds": progress.seconds,
            "skipped": launched.step - progress.updates,
        }
        self._write_metrics(entry)
        self._notify(lambda observer: observer.on_step(entry))
        # every rank has the same loss, so all of them count the same
        self._non_finite_streak = 0 if finite else self._non_finite_streak + 1
        if self._non_finite_streak >= LARGEST_NON_FINITE_STREAK:
            if not self.group.is_main:
                raise RemoteError(TrainingError.exit_code)
            problem = f"the loss was not finite {self._non_finite_streak} times in a row"
            remedy = "resume with a lower training.learning_rate, or training.precision=float32"
            raise TrainingError(f"step {launched.step}: {problem}; the last good checkpoint stays; {remedy}")

    # --- scheduled work -------------------------------------------------------------------------------

    def _run_scheduled(self) -> None:
        """Validate, audition and save if due at this step, unless done before an interruption."""
        step, settings, last = self.progress.step, self.settings, self.progress.step >= self.plan.steps
        if step == 0:
            return
        validate = (step % settings.validate_every == 0 or last) and bool(self.corpus.validation)
        # work done at this step before an interruption is known by its traces: the entry, the file
        if validate and self.progress.validation.get("step") != step:
            with explain_device_errors(self.device, f"validation at step {step}"):
                self._validate(last)
        auditions = settings.audition_every
        due = auditions and (step % auditions == 0 or last)
        if due and self.group.is_main and not self.run.audition_file(step).exists():
            with explain_device_errors(self.device, f"audition at step {step}"):
                self._audition()
        if last:
            self._save()
        elif step % settings.checkpoint_every == 0:
            self._try(self._save)

    def _validate(self, last: bool) -> None:
        """Score held-out audio with the averaged weights; keep them if they are the best, or nearly so and the last."""
        self._record()
        began, progress = time.perf_counter(), self.progress
        clips: Sequence[Any] = self.task.validation_clips(self.settings.validation_seconds)
        figure, best = self.mean_loss(self.average, clips), (progress.best_loss, progress.best_step)
        entry: dict[str, Any] = {
            "step": progress.step,
            "validation_loss": figure,
            "loss_unit": self.task.loss_unit.name,
        }
        # counting pairs and predicting linearly is cheap beside the network: rank 0 does it alone
        if self.group.is_main:
            entry["baselines"] = self.task.baselines(clips)
        entry |= self.task.validation_length(clips)
        # Weights of the last step, whose learning rate is 0, sound better than those of a better figure before it.
        margin = self.task.last_step_margin if last else 0.0
        improved = math.isfinite(figure) and (best[0] is None or figure < best[0] + margin)
        if last:
            # an earlier best checkpoint goes without: `generate` then samples it in float32
            rounded = in_lower_precisions(self.average)
            progress.precision_costs = {name: self.mean_loss(network, clips) - figure for name, network in rounded}
        if last and (shuffled := with_shuffled_frames(clips)) is not None:
            entry["frames_gain"] = self.mean_loss(self.average, shuffled) - figure
            self._notice(describe_gain(entry["frames_gain"]))
        progress.validation = entry
        progress.seconds += time.perf_counter() - began
        if improved:
            progress.best_loss, progress.best_step = figure, progress.step
            saved = self._try(self._save_best)
            improved = self.group.broadcast(saved)  # only rank 0 saves, and all ranks keep the same best
            if not improved:
                progress.best_loss, progress.best_step = best  # the next one may be saved
        entry["is_best"] = improved
        self._write_metrics(entry)
        self._notify(lambda observer: observer.on_validation(entry))

    def mean_loss(self, network: Network, clips: Sequence[Any]) -> float:
        """Return a network's mean loss, scored by all ranks; it does not depend on their number.

        Raises:
            Interrupted: a process was asked to stop.
        """
        # clip i goes to rank i mod size: clips in order of content, long and short ones spread over the ranks
        own = clips[self.group.rank :: self.group.size]
        total, done = sum(map(self.task.n_predictions, own)), 0

        def scored(n_predictions: int) -> None:
            nonlocal done
            done += n_predictions
            self._on_wait("validating", done, total)

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

    def _audition(self) -> None:
        """Write an audition of the averaged weights, if the task has sound."""
        self._record()
        rate, settings = self.config.audio.sample_rate_hz, self.settings
        progress = partial(self._on_wait, "audition")
        waveform = self.task.audition(self.average, settings.audition_seconds, settings.seed, progress)
        if waveform is None:
            return
        path = self.run.audition_file(self.progress.step)
        try:
            path.parent.mkdir(exist_ok=True)
            self._notify(lambda observer: observer.on_audition(self.progress.step, path, waveform, rate))
            with AudioWriter(path, rate, overwrite=True) as writer:  # last: the file marks the audition as done
                writer.write(waveform)
        except (AudioError, OSError) as error:
            self._notice(f"audition not written: {error}")

    def _on_wait(self, what: str, done: int, total: int) -> None:
        self._notify(lambda observer: observer.on_wait(what, done, total))
        self.stop_request.check()

    def _save(self) -> None:
        if self.group.is_main:
            self.run.save(self.checkpoint(), self.settings.keep_last)

    def _save_best(self) -> None:
        if self.group.is_main:
            self.run.save_best(self.checkpoint())

    def _write_metrics(self, entry: dict[str, Any]) -> None:
        if self.group.is_main and (problem := self.run.append_metrics(entry)):
            self._notice(problem)

    def _try(self, write: Callable[[], object]) -> bool:
        """Write an intermediate checkpoint; report a failure and continue, because the next save may succeed."""
        try:
            write()
        except CheckpointError as error:
            self._notice(f"checkpoint not saved: {error}")
            return False
        return True

    def _notice(self, text: str) -> None:
        self._notify(lambda observer: observer.on_notice(text))

    def _notify(self, call: Callable[[Observer], None]) -> None:
        """Call each observer; an error in one is reported once, and training continues."""
        for observer in self.observers:
            try:
                call(observer)
            except Exception as error:  # a full disk, a closed terminal
                problem = f"{type(observer).__name__}: {error}"
                if problem not in self._reported:
                    self._reported.add(problem)
                    self._notice(problem)

    # --- state --------------------------------------------------------------------------------------------------

    def checkpoint(self) -> Checkpoint:
        """Return the whole state, as arrays."""
        self._record()
        return Checkpoint(
            config=self.config,
            step=self.progress.step,
            weights={name: copied(parameter) for name, parameter in self.model.named_parameters()},
            average={name: copied(parameter) for name, parameter in self.average.named_parameters()},
            moments=self.step.optimizer.moments(),
            manifest=self.corpus.manifest(),
            metrics=dict(vars(self.progress)),
            versions={"torch": torch.__version__, "numpy": np.__version__},
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Restore the state of a checkpoint of the same model.

        Raises:
            CheckpointError: its tensors do not fit the model.
        """
        # Weights, average, moments and counters are all there is: windows, masks and auditions follow from the seed.
        load_weights(self.model, checkpoint.weights)
        load_weights(self.average, checkpoint.average)
        self.progress = Progress(**{**checkpoint.metrics, "processes": self.group.size})
        self.step.restore(checkpoint.moments, self.progress.updates)


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
