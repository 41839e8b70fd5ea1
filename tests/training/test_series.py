"""Training on series end to end: what it learns, its figures, and resuming."""

import numpy as np
import pytest

import wavegen
from trainings import assert_same_state, begin, go_on, newest
from wavegen.cli.progress import TrainingDisplay
from wavegen.config import load_config
from wavegen.errors import UsageError
from wavegen.inspect import as_dict, inspect_path
from wavegen.inspect.runs import compare_runs
from wavegen.report.inspected import draw, tables_of
from wavegen.report.page import build_page
from wavegen.report.training import TensorBoardObserver
from wavegen.runs.run_folder import RunFolder, read_history
from wavegen.series.scores import all_series, score_series
from wavegen.training.task import task_type

TINY = [
    "series.synthetic=null",
    "model.layers=[{kind: conv, channels: 8, activation: relu}, {kind: conv, channels: 8, dilation: 2}]",
    "output.horizon=2",
    "training.steps=40",
    "training.batch_size=8",
    "training.window_targets=30",
    "training.learning_rate=0.01",
    "training.validate_every=20",
    "training.checkpoint_every=10",
    "training.threads=1",
]
LSTM = ["model.kind=lstm", "model.recurrent_channels=6", "model.context=4"]
WAVENET = ["model.kind=wavenet", "model.cycles=1", "model.dilation_cycle=2", "model.residual_channels=8"]


@pytest.fixture
def sines(tmp_path):
    """Thirty series of forty values around 1,000, in three files."""
    folder = tmp_path / "sines"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        phase, pace = rng.uniform(0, 6, (10, 1)), rng.uniform(0.3, 0.6, (10, 1))
        series = 1000 + 20 * np.sin(phase + pace * np.arange(40)) + rng.normal(size=(10, 40))
        if i:
            np.save(folder / f"{i}.npy", series)
        else:
            np.savetxt(folder / "0.csv", series.T, delimiter=",", header=",".join("abcdefghij"), comments="")
    return folder


def config_of(folder, *overrides):
    kind = [each for each in overrides if each.startswith("model.kind")]
    tiny = [each for each in TINY if not (kind and each.startswith("model.layers"))]
    return load_config("book-simple", [f"data.folder={folder}", *kind, *tiny, *overrides])


def figures(run, key):
    return [entry[key] for entry in RunFolder(run).metrics() if key in entry]


@pytest.mark.parametrize("error", ["squared", "absolute"])
@pytest.mark.parametrize("kind", [[], LSTM, WAVENET], ids=["stack", "lstm", "wavenet"])
def test_it_learns_and_reports_errors_in_the_datas_own_units(kind, error, sines, tmp_path):
    config = config_of(sines, *kind, f"output.error={error}", "training.steps=200", "training.validate_every=100")
    training = begin(config, tmp_path / "run")
    assert training.config.training.backend == "torch"
    training.fit()
    train = figures(tmp_path / "run", "train_loss")
    assert len(train) == 200
    assert np.mean(train[-20:]) < 0.5 * np.mean(train[:5])
    model = wavegen.load(tmp_path / "run", "cpu")
    series = model.forecaster.held_out_series()
    linear = model.forecaster.fit_linear_forecast(print)
    scores = score_series(series, model.forecaster.score_series(series), linear, model.forecaster.targets)
    everything = all_series(scores)
    last = training.progress.validation
    assert min(figures(tmp_path / "run", "validation_loss")) == pytest.approx(everything.errors.mean, rel=1e-5)
    assert {name: errors.mean for name, errors in everything.baselines.items()} == pytest.approx(last["baselines"])
    assert last["held_out_points"] == everything.errors.n_positions
    assert everything.errors.mean < last["baselines"]["last value"]
    # by hand, in the data's own units
    forecasts = [model.forecast(each.values[: p + 1]) for each in series for p in range(38)]
    truth = [each.values[p + 1 : p + 3] for each in series for p in range(38)]
    difference = np.array(forecasts) - np.array(truth)
    by_hand = np.mean(difference**2) if error == "squared" else np.mean(np.abs(difference))
    assert by_hand == pytest.approx(everything.errors.mean, rel=1e-4)


@pytest.mark.parametrize("kind", [[], LSTM], ids=["stack", "lstm"])
def test_stopped_and_gone_on_with_it_is_the_same_to_the_last_bit(kind, sines, tmp_path, stop_after):
    config = config_of(sines, *kind)
    begin(config, tmp_path / "whole").fit()
    stop_after(begin(config, tmp_path / "parts"), 13)
    go_on(tmp_path / "parts").fit()
    assert newest(tmp_path / "whole").step == 40
    assert_same_state(newest(tmp_path / "whole"), newest(tmp_path / "parts"))
    for key in ("train_loss", "validation_loss"):
        assert figures(tmp_path / "whole", key) == figures(tmp_path / "parts", key)


def test_other_data_stop_a_resume(sines, tmp_path, stop_after):
    stop_after(begin(config_of(sines), tmp_path / "run"), 3)
    np.save(sines / "1.npy", np.load(sines / "1.npy") + 1.0)
    with pytest.raises(UsageError, match=r"differs from what was frozen .* 1\.npy\[0\] \(other content"):
        go_on(tmp_path / "run")


def test_everything_auto_is_frozen(sines, tmp_path):
    overrides = ["training.minutes=0.5", "training.precision=auto", "training.batch_size=auto"]
    frozen = begin(config_of(sines, *overrides), tmp_path / "run").config
    trained_on = np.concatenate([clip.values for clip in task_type(frozen).read_corpus(frozen).train])
    assert (frozen.series.offset, frozen.series.scale) == pytest.approx((trained_on.mean(), trained_on.std()))
    assert (frozen.training.precision, frozen.training.backend) == ("float32", "torch")
    assert frozen.training.steps is not None
    assert frozen.training.steps > 10
    assert isinstance(frozen.training.batch_size, int)


def test_reports_call_an_error_an_error(sines, tmp_path, capsys):
    run = tmp_path / "run"
    training = begin(config_of(sines), run)
    display = TrainingDisplay(40, training.progress, "squared error")
    training.observers = [display, TensorBoardObserver(run / "tensorboard")]
    training.fit()
    said = capsys.readouterr().err
    assert "squared error on 152 points of held-out series (best so far)" in said
    assert "baselines: last value " in said
    history = read_history(run)
    assert (len(history.train), len(history.validations)) == (40, 2)
    inspection = inspect_path(str(run))
    facts = as_dict(inspection)
    assert facts["best_loss"] == training.progress.best_loss
    assert facts["seen"] == training.progress.targets
    assert facts["config"]["output"]["horizon"] == 2
    assert facts["baselines"].keys() == {"last value", "linear"}
    page = build_page(inspection, [], 0.0, lambda done, total: None)
    checkpoint = inspect_path(str(run / "checkpoints" / "best.safetensors"))
    comparison = compare_runs([run, run])
    assert comparison.losses_comparable
    everything = f"{facts} {as_dict(checkpoint)} {as_dict(comparison)['runs']} {said}"
    tables = [*tables_of(inspection), *tables_of(checkpoint), *tables_of(comparison)]
    everything += " ".join(f"{t.title} {t.columns} {t.rows} {t.more}" for t in tables)
    for word in ("bits/sample", "bits_per_sample", " Hz", "of audio", "held-out audio", "mu_law classes"):
        assert word not in everything
    for word in ("bits/sample", "Samples</h2>", "Auditions</h2>", "<audio"):
        assert word not in page
    for shown in (inspection, checkpoint, comparison, inspect_path(str(sines)), inspect_path(str(run / "config.yaml"))):
        target = tmp_path / f"{shown.kind}.png"
        draw(shown, target)
        assert target.stat().st_size > 2000
    assert {file.name for file in run.iterdir()} == {"config.yaml", "metrics.jsonl", "checkpoints", "tensorboard"}


def test_series_that_never_change_are_shown_although_all_errors_are_0(tmp_path):
    (tmp_path / "still").mkdir()
    np.save(tmp_path / "still" / "1.npy", np.full((3, 40), 5.0))
    begin(config_of(tmp_path / "still", "training.steps=2"), tmp_path / "run").fit()
    run = inspect_path(str(tmp_path / "run"))
    assert run.best_loss == 0.0
    assert "At step 2 held-out series have 0 squared error" in build_page(run, [], 0.0, print)
    draw(run, tmp_path / "run.png")
    checkpoint = inspect_path(str(tmp_path / "run" / "checkpoints" / "best.safetensors"))
    draw(checkpoint, tmp_path / "checkpoint.png")


def test_sound_and_series_do_not_compare(sines, tmp_path):
    for error in ("squared", "absolute"):
        begin(config_of(sines, f"output.error={error}", "training.steps=2"), tmp_path / error).fit()
    with pytest.raises(UsageError, match="runs of one kind to compare, found some measured in absolute error and squ"):
        compare_runs([tmp_path / "squared", tmp_path / "absolute"])


def test_a_model_of_series_makes_no_sound(sines, tmp_path):
    model = wavegen.train(sines, config_of(sines, "training.steps=2"), run=tmp_path / "run", device="cpu")
    calls = [
        lambda: model.generate(seconds=1),
        lambda: model.score(np.zeros(10)),
        lambda: model.faults(np.zeros(10)),
        lambda: model.clips,
    ]
    for call in calls:
        with pytest.raises(UsageError, match="expected a model of sound, found a model of series of numbers"):
            call()
    rows = np.load(sines / "1.npy")
    assert model.forecast(rows).shape == (10, 2)
    assert model.forecast(rows[0], steps=7).shape == (7,)
    for wrong, complaint in (([np.nan], "series of finite numbers"), ([], "found the shape"), (3.0, "found the shape")):
        with pytest.raises(UsageError, match=complaint):
            model.forecast(wrong)
    with pytest.raises(UsageError, match=r"steps: expected a whole number from 1 to 100,000, found 0"):
        model.forecast(rows, steps=0)


def test_a_model_of_sound_forecasts_nothing():
    model = wavegen.load("voice", device="cpu")
    assert model.forecaster is None
    with pytest.raises(UsageError, match="expected a model of series of numbers, found a model of sound"):
        model.forecast(np.zeros(10))


def test_minutes_of_made_up_series_need_no_folder(tmp_path):
    config = load_config("book-simple", ["training.steps=2", "series.points=12", "output.horizon=1"])
    model = wavegen.train(config=config, run=tmp_path / "run", device="cpu")
    assert len(model.forecaster.held_out_series()) == 2000
    assert len(model.forecaster.series_to_score([], True, print)) == 1000
