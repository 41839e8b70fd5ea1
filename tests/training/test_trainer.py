"""Training as a whole, on tiny models and synthetic clips: what it learns, counts, skips, keeps and takes up again."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from recordings import write_tones
from trainings import ON_CPU, RATE_HZ, TINY, assert_same_state, begin, go_on, newest
from wavegen.audio.levels import RecordingProfile
from wavegen.audio.quantize import build_quantizer
from wavegen.config import load_config, override
from wavegen.errors import CheckpointError, ModelError, TrainingError, UsageError
from wavegen.model.building import build_model, load_weights
from wavegen.runs.checkpoint import load_checkpoint
from wavegen.runs.run_folder import RunFolder, read_history
from wavegen.text import format_duration
from wavegen.training import backends, task
from wavegen.training.plan import Trial
from wavegen.training.process_group import Group
from wavegen.training.progress import Interrupted, Observer
from wavegen.training.start import _little_data, resume_run, start_run
from wavegen.training.step import update_ema


@pytest.fixture
def sines(tmp_path):
    return write_tones(tmp_path / "sines", [210] * 12)


def tiny_config(folder, *overrides):
    return load_config("small", [f"data.folder={folder}", *TINY, *overrides])


@pytest.mark.parametrize(
    "overrides",
    [
        ["training.precision=float32"],
        ["training.precision=bfloat16", "training.threads=2"],
        ["model.dropout=0.3", "training.accumulation=2"],
        ["model.weight_norm=true", "model.activation=relu", "model.bias=false"],
    ],
    ids=str,
)
def test_interrupted_and_resumed_equals_uninterrupted(sines, tmp_path, overrides, stop_after):
    config = tiny_config(sines, *overrides, "training.validate_every=4")
    begin(config, tmp_path / "whole").fit()
    stop_after(begin(config, tmp_path / "parts"), step=5)
    stop_after(go_on(tmp_path / "parts"), step=8)
    go_on(tmp_path / "parts").fit()
    assert_same_state(newest(tmp_path / "parts"), newest(tmp_path / "whole"))
    assert newest(tmp_path / "parts").step == 10

    whole, parts = (list(RunFolder(tmp_path / name).metrics()) for name in ("whole", "parts"))
    assert [entry["step"] for entry in parts if "train_loss" in entry] == list(range(1, 11))
    assert [entry["train_loss"] for entry in parts if "train_loss" in entry] == [
        entry["train_loss"] for entry in whole if "train_loss" in entry
    ]
    assert [entry["validation_loss"] for entry in parts if "validation_loss" in entry] == [
        entry["validation_loss"] for entry in whole if "validation_loss" in entry
    ]


def test_interrupted_while_validating_validates_after_resuming(sines, tmp_path, monkeypatch):
    config = tiny_config(sines, "training.validate_every=4")
    training = begin(config, tmp_path / "run")
    original = task.model_bits

    def interrupted(*args):
        training.stop_request.signal_number = 15
        return original(*args)

    monkeypatch.setattr(task, "model_bits", interrupted)
    with pytest.raises(Interrupted) as stopped:
        training.fit()
    assert stopped.value.exit_code == 143
    assert newest(tmp_path / "run").step == 4
    monkeypatch.undo()
    go_on(tmp_path / "run").fit()
    begin(config, tmp_path / "whole").fit()
    assert_same_state(newest(tmp_path / "run"), newest(tmp_path / "whole"))
    validated = [entry["step"] for entry in RunFolder(tmp_path / "run").metrics() if "validation_loss" in entry]
    assert validated == [4, 8, 10]


def test_average_is_the_bias_corrected_exponential_mean():
    config = load_config("small", ["model.cycles=1", "model.dilation_cycle=2"])
    model, average = build_model(config), build_model(config)
    history = []
    for update in range(1, 6):
        torch.nn.init.normal_(model.skip.weight)
        history.append(model.skip.weight.detach().numpy().copy())
        update_ema(average, model, 0.9, torch.tensor(float(update)), torch.tensor(True))
    weights = 0.9 ** np.arange(4, -1, -1)
    expected = np.tensordot(weights / weights.sum(), np.array(history), axes=1)
    np.testing.assert_allclose(average.skip.weight.detach().numpy(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("limit", [1e-3, None])
def test_gradients_are_no_longer_than_the_limit(sines, tmp_path, limit):
    config = tiny_config(sines, "training.steps=1", f"training.gradient_clip={'null' if limit is None else limit}")
    training = begin(config, tmp_path / "run")
    training.fit()
    applied = math.hypot(*(float(parameter.grad.norm()) for parameter in training.model.parameters()))
    found = next(entry["gradient_norm"] for entry in training.run.metrics() if "gradient_norm" in entry)
    assert found > 0.1
    assert applied == pytest.approx(found if limit is None else limit, rel=1e-3)


def spoil_losses(monkeypatch, bad_steps):
    original, steps = backends.FusedBackend.gradients, itertools.count()

    def spoiled(self, *args):
        nats, gradients = original(self, *args)
        return (math.nan if bad_steps(next(steps)) else nats), gradients

    monkeypatch.setattr(backends.FusedBackend, "gradients", spoiled)


def test_a_step_without_finite_loss_is_skipped_and_counted(sines, tmp_path, monkeypatch):
    spoil_losses(monkeypatch, lambda call: call in (3, 4))
    training = begin(tiny_config(sines), tmp_path / "run")
    training.fit()
    assert (training.progress.step, training.progress.updates) == (10, 8)
    assert all(torch.isfinite(parameter).all() for parameter in training.model.parameters())
    entries = [entry for entry in training.run.metrics() if "train_loss" in entry]
    assert [entry["skipped"] for entry in entries] == [0, 0, 0, 1, 2, 2, 2, 2, 2, 2]
    assert [entry["train_loss"] is None for entry in entries] == [i in (3, 4) for i in range(10)]


def test_repeated_non_finite_losses_end_in_an_error_and_keep_the_last_good_checkpoint(sines, tmp_path, monkeypatch):
    spoil_losses(monkeypatch, lambda call: call >= 4)
    config = tiny_config(sines, "training.steps=100", "training.checkpoint_every=2")
    with pytest.raises(TrainingError, match=r"step 24: the loss was not finite 20 times in a row.*learning_rate"):
        begin(config, tmp_path / "run").fit()
    assert all(np.isfinite(array).all() for array in newest(tmp_path / "run").weights.values())


def test_overfits_a_sine_and_continues_it_with_its_frequency(tmp_path):
    hz = 210.0
    folder = write_tones(tmp_path / "one", [hz], seconds=2.0, noise=0.0)
    config = tiny_config(
        folder, "data.validation=0.0", "training.steps=400", "training.learning_rate=0.01", "training.ema_decay=0.95"
    )
    begin(config, tmp_path / "run").fit()

    from wavegen.api import load

    trained = load(tmp_path / "run")
    clip = trained.load_clip(folder / "0.wav")
    assert trained.score(clip) < 0.5
    continued = trained.generate(1.0, prime=clip, temperature=0.5)[0]
    spectrum = np.abs(np.fft.rfft(continued * np.hanning(len(continued))))
    assert np.argmax(spectrum) * RATE_HZ / len(continued) == pytest.approx(hz, abs=2.0)


def test_last_validation_is_what_evaluation_gives(sines, tmp_path):
    config = tiny_config(sines, "training.steps=30")  # all that is held out is less than training.validation_seconds
    training = begin(config, tmp_path / "run")
    training.fit()

    from wavegen.api import load
    from wavegen.evaluation.scores import score_clips, total

    trained = load(training.run.step_checkpoints()[-1])
    clips = trained.clips.held_out()
    baselines = trained.clips.fit_baselines(print)
    scores = score_clips(trained.network, clips, trained.quantizer, baselines, lambda n: None)
    last = training.progress.validation
    assert last["step"] == 30
    assert total(scores).bits_per_sample == pytest.approx(last["validation_loss"], abs=1e-4)
    mean = {name: bits / total(scores).n_samples for name, bits in total(scores).baseline_bits.items()}
    assert mean == pytest.approx(last["baselines"])
    assert last["held_out_seconds"] == last["all_held_out_seconds"] == total(scores).n_samples / RATE_HZ


def test_every_validation_scores_the_same_part_and_the_baselines_with_it(sines, tmp_path):
    """The first half second; the last validation is none of its own."""
    config = tiny_config(sines, "data.validation=0.5", "training.validate_every=5", "training.validation_seconds=0.7")
    training = begin(config, tmp_path / "run")
    training.fit()
    entries = [entry for entry in training.run.metrics() if "validation_loss" in entry]
    assert [entry["step"] for entry in entries] == [5, 10]
    assert all("held_out_loss" not in entry for entry in entries)
    assert entries[0]["baselines"] == entries[1]["baselines"]
    everything = sum(clip.n_samples for clip in training.corpus.validation) / RATE_HZ
    assert everything > 1
    for entry in entries:
        assert (entry["held_out_seconds"], entry["all_held_out_seconds"]) == (pytest.approx(0.7), everything)
    part = training.task.validation_clips(0.7)
    assert entries[1]["baselines"] == training.task.baselines(part)
    assert entries[1]["validation_loss"] == pytest.approx(training.mean_loss(training.average, part))


def test_windows_begin_in_the_silence_that_clips_are_scored_in(sines, tmp_path):
    training = begin(tiny_config(sines), tmp_path / "run")
    assert training.windows.silence == build_quantizer(training.config).silence == 128


def test_the_first_step_of_256_classes_costs_8_bits(sines, tmp_path):
    training = begin(tiny_config(sines, "training.steps=1"), tmp_path / "run")
    training.fit()
    assert next(training.run.metrics())["train_loss"] == pytest.approx(8.0, abs=1e-4)


def test_auditions_are_of_the_averaged_weights(sines, tmp_path):
    config = tiny_config(sines, "training.audition_every=10", "training.audition_seconds=0.2")
    training = begin(config, tmp_path / "run")
    training.fit()

    from wavegen.api import load

    heard, _ = soundfile.read(training.run.audition_file(10), dtype="float32")
    made = load(training.run.step_checkpoints()[-1]).generate(0.2, precision="float32")[0]
    np.testing.assert_allclose(heard, made, atol=2.0**-15)


def test_the_best_checkpoint_is_the_one_with_the_lowest_validation(sines, tmp_path):
    config = tiny_config(sines, "training.steps=40", "training.validate_every=5", "training.learning_rate=0.05")
    training = begin(config, tmp_path / "run")
    training.fit()
    figures = {e["step"]: e["validation_loss"] for e in training.run.metrics() if "validation_loss" in e}
    assert load_checkpoint(training.run.best_checkpoint).step == min(figures, key=lambda step: figures[step])


def test_fine_tuning_starts_from_the_other_run_and_reports_misfits(sines, tmp_path):
    begin(tiny_config(sines), tmp_path / "first").fit()
    run, said, start = tmp_path / "second", [], {"init_from": tmp_path / "first"}
    with pytest.raises(ModelError, match=r"first does not fit .*: 'head.weight': expected the shape \(20, 16\), found"):
        begin(tiny_config(sines, "model.head_channels=20"), run, **start)
    assert not run.exists()
    second = begin(tiny_config(sines, "mel.n_mels=8"), run, said, **start)
    assert "fresh: conditioning.projection" in "\n".join(said)
    first = load_checkpoint(RunFolder(tmp_path / "first").best_checkpoint)
    np.testing.assert_array_equal(second.model.skip.weight.detach().numpy(), first.average["skip.weight"])
    np.testing.assert_array_equal(second.average.skip.weight.detach().numpy(), first.average["skip.weight"])


def test_fine_tuning_reports_settings_that_differ_though_the_tensors_fit(sines, tmp_path):
    begin(tiny_config(sines, "mel.n_mels=8"), tmp_path / "first").fit()
    changed = tiny_config(sines, "quantization.kind=linear")
    said = []
    begin(changed, tmp_path / "second", said, tmp_path / "first")
    assert any(line.endswith("first was trained otherwise: quantization.kind: mu_law -> linear") for line in said)
    assert any("not used: conditioning.projection" in line for line in said)


@pytest.mark.parametrize("normed", [False, True])
def test_fine_tuning_makes_directions_and_gains_of_weights_and_the_reverse(sines, tmp_path, normed):
    first, second = (tiny_config(sines, f"model.weight_norm={str(each).lower()}") for each in (normed, not normed))
    begin(first, tmp_path / "first").fit()
    said = []
    training = begin(second, tmp_path / "new", said, tmp_path / "first")
    assert not any("fresh" in line for line in said)
    clips = training.task.validation_clips(None)
    best = load_checkpoint(RunFolder(tmp_path / "first").best_checkpoint)
    old = begin(first, tmp_path / "again")
    load_weights(old.average, best.average)
    before, after = (each.mean_loss(each.average, clips) for each in (old, training))
    assert after == pytest.approx(before, rel=1e-5)


def test_a_figure_that_is_no_number_is_not_the_best(sines, tmp_path, monkeypatch):
    training = begin(tiny_config(sines, "training.validate_every=10"), tmp_path / "run")
    monkeypatch.setattr(task, "model_bits", lambda model, classes, *_: [math.nan] * len(classes))
    training.fit()
    assert training.progress.best_loss is None
    assert not RunFolder(tmp_path / "run").best_checkpoint.exists()


def test_a_wrong_checkpoint_to_start_from_leaves_no_run_behind(sines, tmp_path):
    with pytest.raises(UsageError, match="expected a run folder or a checkpoint, found nothing"):
        begin(tiny_config(sines), tmp_path / "new", init_from=tmp_path / "nothing")
    assert not (tmp_path / "new").exists()


def test_costs_of_lower_precisions_belong_to_the_weights_they_were_measured_on(sines, tmp_path, stop_after):
    config = tiny_config(sines, "training.steps=20", "training.validate_every=5", "training.checkpoint_every=5")
    begin(config, tmp_path / "run").fit()
    costs = newest(tmp_path / "run").metrics["precision_costs"]
    assert costs.keys() == {"bfloat16", "int8"}
    assert all(abs(cost) < 0.1 for cost in costs.values())
    further = go_on(tmp_path / "run", lambda frozen: frozen.with_values("training", steps=30))
    stop_after(further, step=27)
    assert newest(tmp_path / "run").metrics["precision_costs"] == {}
    go_on(tmp_path / "run").fit()
    best = load_checkpoint(RunFolder(tmp_path / "run").best_checkpoint)
    assert best.metrics["precision_costs"].keys() == {"bfloat16", "int8"}


@pytest.mark.parametrize(("below", "kept"), [(0.04, 20), (0.06, 5)])
def test_the_last_weights_are_kept_unless_others_are_better_by_a_margin(sines, tmp_path, monkeypatch, below, kept):
    training = begin(tiny_config(sines, "training.steps=20", "training.validate_every=5"), tmp_path / "run")
    losses = iter([4.0, 4.1, 4.2, 4.0 + below])
    monkeypatch.setattr(training, "mean_loss", lambda network, clips: next(losses, 4.0))
    training.fit()
    best = load_checkpoint(RunFolder(tmp_path / "run").best_checkpoint)
    assert best.step == training.progress.best_step == kept
    history = read_history(tmp_path / "run")
    assert [each.step for each in history.validations if each.is_best] == [5, *([20] if kept == 20 else [])]
    assert history.best.step == kept


def test_a_periodic_save_that_fails_is_reported_and_retried(sines, tmp_path, monkeypatch):
    training = begin(tiny_config(sines, "training.steps=12", "training.checkpoint_every=3"), tmp_path / "run")
    full, said, original = itertools.count(), [], RunFolder.save

    def sometimes(run, checkpoint, keep_last):
        if checkpoint.step == 3:
            next(full)
            raise CheckpointError("no space left")
        return original(run, checkpoint, keep_last)

    class Listener(Observer):
        def on_notice(self, text):
            said.append(text)

    monkeypatch.setattr(RunFolder, "save", sometimes)
    training.observers = [Listener()]
    training.fit()
    assert said == ["checkpoint not saved: no space left"]
    assert newest(tmp_path / "run").step == 12


def test_a_failing_observer_is_reported_once_and_training_continues(sines, tmp_path):
    said = []

    class Broken(Observer):
        def on_step(self, entry):
            raise OSError("no space left")

    class Listener(Observer):
        def on_notice(self, text):
            said.append(text)

    training = begin(tiny_config(sines), tmp_path / "run")
    training.observers = [Broken(), Listener()]
    training.fit()
    assert said == ["Broken: no space left"]
    assert newest(tmp_path / "run").step == 10


def test_an_audition_that_cannot_be_written_is_reported_and_training_continues(sines, tmp_path):
    config = tiny_config(sines, "training.audition_every=5", "training.audition_seconds=0.1")
    training = begin(config, tmp_path / "run")
    (tmp_path / "run" / "auditions").write_text("in the way")
    told = []

    class Listener(Observer):
        def on_notice(self, text):
            told.append(text)

    training.observers = [Listener()]
    training.fit()
    assert newest(tmp_path / "run").step == 10
    assert len(told) == 2
    assert all(text.startswith("audition not written: ") for text in told)


def test_a_training_whose_last_save_fails_does_not_end_well(sines, tmp_path, monkeypatch):
    training = begin(tiny_config(sines), tmp_path / "run")

    def full(run, checkpoint, keep_last):
        raise CheckpointError("no space left")

    monkeypatch.setattr(RunFolder, "save", full)
    with pytest.raises(CheckpointError, match="no space left"):
        training.fit()


def test_fewer_steps_than_were_made_are_refused(sines, tmp_path):
    begin(tiny_config(sines), tmp_path / "run").fit()
    with pytest.raises(UsageError, match="is at step 10; expected more steps than that, found 5"):
        go_on(tmp_path / "run", lambda frozen: frozen.with_values("training", steps=5))


def resumed_with(run, *overrides):
    return go_on(run, lambda frozen: override(frozen, [f"training.{each}" for each in overrides]))


def test_resuming_with_minutes_adds_them(sines, tmp_path):
    begin(tiny_config(sines), tmp_path / "run").fit()
    assert resumed_with(tmp_path / "run", "minutes=0.001").plan.steps == 11, "there is always time for a step"
    assert "steps: 11" in (tmp_path / "run" / "config.yaml").read_text()
    longer = resumed_with(tmp_path / "run", "minutes=0.3")
    assert longer.plan.steps > 12
    assert longer.config.training.minutes is None


def test_resuming_with_minutes_and_steps_ends_at_the_fewer(sines, tmp_path):
    begin(tiny_config(sines), tmp_path / "run").fit()
    assert resumed_with(tmp_path / "run", "minutes=1", "steps=13").plan.steps == 13
    assert resumed_with(tmp_path / "run", "minutes=0.001", "steps=1000").plan.steps == 11
    with pytest.raises(UsageError, match="is at step 10; expected more steps than that, found 5"):
        resumed_with(tmp_path / "run", "minutes=1", "steps=5")


def test_resuming_reports_the_learning_rate_schedule(sines, tmp_path):
    said = []
    begin(tiny_config(sines), tmp_path / "run").fit()
    run = RunFolder(tmp_path / "run")
    resume_run(run, lambda frozen: frozen, False, ON_CPU, said.append)
    resume_run(run, lambda frozen: override(frozen, ["training.steps=12"]), False, ON_CPU, said.append)
    assert said[-1] == "resumed at step 10 of 12; the learning rate falls to 0 at the last one"
    assert said[-2] == "complete at step 10 of 10; train on with --resume --minutes 30"


def test_an_existing_run_is_never_overwritten(sines, tmp_path):
    begin(tiny_config(sines), tmp_path / "run")
    with pytest.raises(UsageError, match=r"is not empty; continue with .* --resume, or choose another"):
        begin(tiny_config(sines), tmp_path / "run")


def test_a_longer_schedule_resumes_without_being_asked_twice(sines, tmp_path):
    begin(tiny_config(sines), tmp_path / "run").fit()
    longer = go_on(tmp_path / "run", lambda frozen: frozen.with_values("training", steps=15))
    longer.fit()
    assert newest(tmp_path / "run").step == 15
    assert load_config(tmp_path / "run" / "config.yaml").training.steps == 15


def test_what_auto_decided_stays_when_the_same_file_is_given_again(sines, tmp_path, stop_after):
    config = load_config("small", [f"data.folder={sines}", *TINY, "training.precision=auto", "training.threads=auto"])
    stop_after(begin(config, tmp_path / "run"), step=5)
    resumed = go_on(tmp_path / "run", lambda _: config)
    assert resumed.settings == load_config(tmp_path / "run" / "config.yaml").training
    assert "auto" not in resumed.settings.model_dump().values()


def test_a_changed_configuration_is_shown_and_needs_a_word(sines, tmp_path, stop_after):
    stop_after(begin(tiny_config(sines), tmp_path / "run"), step=5)

    def faster(frozen):
        return frozen.with_values("training", learning_rate=0.02)

    with pytest.raises(UsageError, match=r"training\.learning_rate: [\d.]+ -> 0\.02.*--accept-changes"):
        go_on(tmp_path / "run", faster)
    assert go_on(tmp_path / "run", faster, accept=True).settings.learning_rate == 0.02
    with pytest.raises(UsageError, match=r"cannot change within a run: model\.residual_channels: 12 -> 13"):
        go_on(tmp_path / "run", lambda frozen: frozen.with_values("model", residual_channels=13), accept=True)
    with pytest.raises(UsageError, match="residual_channels") as refused:
        go_on(tmp_path / "run", lambda frozen: faster(frozen).with_values("model", residual_channels=13))
    assert "learning_rate" not in str(refused.value)  # which can change


def test_a_changed_folder_is_shown_and_needs_a_word(sines, tmp_path, stop_after):
    stop_after(begin(tiny_config(sines), tmp_path / "run"), step=5)
    soundfile.write(sines / "new.wav", np.full(2000, 0.1), RATE_HZ)
    with pytest.raises(UsageError, match=r"added: new\.wav \(.*--accept-changes"):
        go_on(tmp_path / "run")
    go_on(tmp_path / "run", accept=True).fit()
    assert newest(tmp_path / "run").step == 10


def minutes(number):
    return ["training.steps=null", f"training.minutes={number}"]


@pytest.fixture
def known_speed(monkeypatch):
    """Every step takes 0.1 s; a second of audio takes 0.2 s to score and 1 s to sample."""
    monkeypatch.setattr(Trial, "step_seconds", lambda *_: 0.1)
    monkeypatch.setattr(task, "_scoring_seconds", lambda *_: 0.2)
    monkeypatch.setattr(task, "_sampling_seconds", lambda *_: 1.0 / RATE_HZ)


@pytest.mark.parametrize(("steps", "fewer"), [(50, True), (10**6, False)])
def test_of_steps_and_minutes_the_fewer_count(sines, tmp_path, known_speed, steps, fewer):
    alone = begin(tiny_config(sines, *minutes(1)), tmp_path / "alone").plan.steps
    assert 300 < alone < 600
    both = begin(tiny_config(sines, f"training.steps={steps}", "training.minutes=1"), tmp_path / "both")
    assert both.plan.steps == (steps if fewer else alone)
    assert both.config.training.minutes is None
    assert both.plan.seconds == pytest.approx(60 * both.plan.steps / alone)


@pytest.mark.parametrize("number", [3, 30])
def test_minutes_leave_most_of_the_time_to_steps(tmp_path, known_speed, number):
    folder = write_tones(tmp_path / "tones", [210] * 20, seconds=2)
    looks = ["training.validate_every=100", "training.audition_every=100", "training.audition_seconds=4"]
    looks += ["data.validation=0.5", "training.validation_seconds=10"]
    training = begin(tiny_config(folder, *looks, *minutes(number)), tmp_path / "run")
    settings = training.settings
    assert training.plan.steps * 0.1 >= 0.8 * number * 60
    assert 0.5 <= settings.audition_seconds < 4
    assert 1 <= settings.validation_seconds < 10
    looked = training.plan.steps / 100 * (0.2 * settings.validation_seconds + settings.audition_seconds)
    assert training.plan.steps * 0.1 + looked <= number * 60


def test_checks_are_shortened_no_further_than_sensible_and_the_minutes_are_kept(tmp_path, known_speed):
    """Every other second there is one: they get the shortest lengths, and the steps what is left."""
    folder = write_tones(tmp_path / "tones", [210] * 20, seconds=2)
    looks = ["training.validate_every=20", "training.audition_every=20", "training.audition_seconds=0.3"]
    training = begin(tiny_config(folder, *looks, "data.validation=0.5", *minutes(3)), tmp_path / "run")
    assert (training.settings.validation_seconds, training.settings.audition_seconds) == (1.0, 0.3)
    assert 100 < training.plan.steps * (0.1 + (0.2 + 0.3) / 20) <= 180


def test_minutes_leave_what_fits_as_it_is(sines, tmp_path, known_speed):
    training = begin(tiny_config(sines, *minutes(30)), tmp_path / "run")
    assert training.settings.validation_seconds == tiny_config(sines).training.validation_seconds
    assert training.settings.audition_seconds == tiny_config(sines).training.audition_seconds


@pytest.mark.parametrize(("steps", "warmup", "capped"), [(10, 100, 1), (300, 100, 30), (300, 20, 20), (5, 100, 0)])
def test_the_warm_up_is_a_tenth_of_a_new_run_at_most(sines, tmp_path, steps, warmup, capped):
    config = tiny_config(sines, f"training.steps={steps}", f"training.warmup_steps={warmup}")
    assert begin(config, tmp_path / "run").settings.warmup_steps == capped
    assert load_config(tmp_path / "run" / "config.yaml").training.warmup_steps == capped


def test_a_shortened_warm_up_is_no_change_when_the_same_file_is_given_again(sines, tmp_path, stop_after):
    config = tiny_config(sines)
    stop_after(begin(config, tmp_path / "run"), step=5)
    assert go_on(tmp_path / "run", lambda _: config).settings.warmup_steps == 1
    other = tiny_config(sines, "training.warmup_steps=0")
    with pytest.raises(UsageError, match=r"training\.warmup_steps: 1 -> 0; .*--accept-changes"):
        go_on(tmp_path / "run", lambda _: other)
    assert go_on(tmp_path / "run", lambda _: other, accept=True).settings.warmup_steps == 0


@pytest.mark.parametrize(("steps", "told"), [(199, True), (200, False)])
def test_a_training_of_few_steps_warns(sines, tmp_path, steps, told):
    said = []
    begin(tiny_config(sines, f"training.steps={steps}"), tmp_path / "run", said)
    words = "199 steps are too few to learn much: expect noise; train longer"
    assert (words in said) == told
    assert not any("passes" in text for text in said)


def test_few_steps_from_another_runs_weights_are_no_noise(sines, tmp_path):
    said = []
    begin(tiny_config(sines), tmp_path / "first").fit()
    begin(tiny_config(sines), tmp_path / "second", said, tmp_path / "first")
    assert not any("expect noise" in text for text in said)


def test_little_sound_repeats_after_many_passes(sines, tmp_path):
    said = []
    begin(tiny_config(sines, "training.steps=3000"), tmp_path / "run", said)
    again = "which the model will repeat after 55 passes"
    assert said[0] == f"only 5.5 s of sound to train on, {again}; 5 minutes are enough for a try"


@pytest.mark.parametrize(
    ("n_train", "n_held_out", "seconds", "share", "more"),
    [
        (63, 7, 2.3, 0.1, ", or --set data.validation=0.2"),
        (36, 4, 30.0, 0.1, ", or --set data.validation=0.2"),
        (7, 7, 0.5, 0.1, ""),
        (63, 7, 2.3, "held_out/", ""),
        (10, 2, 1.0, 0.1, ""),
        (60, 7, 5.0, 0.1, None),
    ],
)
def test_little_held_out_audio_names_the_share_that_is_enough(n_train, n_held_out, seconds, share, more):
    parts = [[SimpleNamespace(n_samples=round(seconds * RATE_HZ))] * n for n in (n_train, n_held_out)]
    plan = SimpleNamespace(
        config=load_config("small", [f"audio.sample_rate_hz={RATE_HZ}", f"data.validation={share}"]),
        compute=SimpleNamespace(batch_size=8),
        steps=1000,
    )
    said = [text for text in _little_data(plan, SimpleNamespace(train=parts[0], validation=parts[1])) if "held" in text]
    words = "bits/sample on so little say nothing; 5 clips and 30 s are enough: record more"
    start = f"only {n_held_out} clips held out, {format_duration(n_held_out * seconds)}: "
    assert said == ([] if more is None else [f"{start}{words}{more}"])


def test_a_checkpoint_knows_what_the_recordings_are_like(sines, tmp_path, stop_after):
    training = begin(tiny_config(sines), tmp_path / "run")
    stop_after(training, step=5)
    stored = newest(tmp_path / "run").metrics["recordings"]
    assert stored == training.task.recording_profile()
    profile = RecordingProfile.from_dict(stored)
    assert profile.whole.centroid_hz == pytest.approx(210, rel=0.1)
    assert profile.clip_seconds == [0.5, 0.5, 0.5]
    go_on(tmp_path / "run").fit()
    assert newest(tmp_path / "run").metrics["recordings"] == stored


def test_minutes_become_steps_that_are_frozen(sines, tmp_path):
    config = load_config("small", [f"data.folder={sines}", *TINY, *minutes(0.2), "training.precision=auto"])
    training = begin(config, tmp_path / "run")
    frozen = load_config(tmp_path / "run" / "config.yaml")
    assert frozen == training.config
    assert frozen.training.minutes is None
    assert frozen.training.steps is not None
    assert frozen.training.steps > 1
    assert frozen.training.precision in ("float32", "bfloat16")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_running_out_of_memory_names_the_keys_to_change(sines, tmp_path, monkeypatch, error):
    training = begin(tiny_config(sines), tmp_path / "run")

    def full(*_):
        raise error

    monkeypatch.setattr(training.backend, "gradients", full)
    with pytest.raises(TrainingError, match=r"step 1: out of memory on cpu; lower training\.batch_size, .*=true"):
        training.fit()


@pytest.mark.parametrize("where", ["step 1", "validation at step 10"])
def test_out_of_memory_is_explained_in_updates_and_validations_too(sines, tmp_path, monkeypatch, where):
    training = begin(tiny_config(sines), tmp_path / "run")

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(
        *((training.step.optimizer, "step", full) if where == "step 1" else (training, "_validate", full))
    )
    with pytest.raises(TrainingError, match=f"^{where}: out of memory on cpu; lower training.batch_size"):
        training.fit()


def test_steps_are_recorded_in_order_when_a_gpu_is_a_step_behind(sines, tmp_path, monkeypatch):
    """As on a GPU, which computes a step while the one before is recorded."""
    spoil_losses(monkeypatch, lambda call: call == 4)
    training = begin(tiny_config(sines, "training.validate_every=3", "training.checkpoint_every=5"), tmp_path / "run")
    training.most_launched = 1
    behind = []

    class Listener(Observer):
        def on_step(self, entry):
            behind.append(training.progress.step - entry["step"])

    training.observers = [Listener()]
    training.fit()
    monkeypatch.undo()
    assert behind == [1, 1, 0, 1, 0, 0, 1, 1, 0, 0]  # none at validations and checkpoints
    spoil_losses(monkeypatch, lambda call: call == 4)
    begin(tiny_config(sines, "training.validate_every=3", "training.checkpoint_every=5"), tmp_path / "other").fit()
    assert_same_state(newest(tmp_path / "run"), newest(tmp_path / "other"))
    entries = [[line.get("train_loss") for line in RunFolder(tmp_path / name).metrics()] for name in ("run", "other")]
    assert entries[0] == entries[1]


def test_another_error_is_not_taken_for_it(sines, tmp_path, monkeypatch):
    training = begin(tiny_config(sines), tmp_path / "run")

    def broken(*_):
        raise RuntimeError("something else")

    monkeypatch.setattr(training.backend, "gradients", broken)
    with pytest.raises(RuntimeError, match="something else"):
        training.fit()


def test_calibrating_changes_nothing_in_the_training(sines, tmp_path):
    config = load_config("small", [f"data.folder={sines}", *TINY, *minutes(0.2)])
    calibrated = begin(config, tmp_path / "one")
    plain = begin(calibrated.config, tmp_path / "two")
    for mine, others in zip(calibrated.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(mine, others)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_trains_and_resumes_on_cuda(sines, tmp_path, stop_after):
    config = tiny_config(sines, "training.precision=bfloat16", "training.steps=60", "training.learning_rate=0.01")
    device = torch.device("cuda")
    training = start_run(config, RunFolder(tmp_path / "run"), Group(device=device), print)
    stop_after(training, step=30)
    resumed = resume_run(RunFolder(tmp_path / "run"), lambda frozen: frozen, False, Group(device=device), print)
    resumed.fit()
    assert resumed.progress.validation["validation_loss"] < 6.0
    assert build_quantizer(config).classes == 256
