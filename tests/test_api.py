"""wavegen from Python, as a notebook uses it."""

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

import wavegen
from recordings import write_tones
from wavegen.audio.levels import RecordingProfile
from wavegen.audio.waveform import Preparation, load_waveform
from wavegen.errors import UsageError
from wavegen.evaluation.clips import load_unprepared
from wavegen.runs.checkpoint import save_checkpoint
from wavegen.sampling.candidates import rank_candidates
from wavegen.sampling.sampler import SamplingOptions, as_mono
from wavegen.sampling.verdict import Fault, Verdict
from wavegen.training.progress import Observer

RATE_HZ = 8000
TINY = ["audio.sample_rate_hz=8000", "model.cycles=1", "model.dilation_cycle=4", "model.residual_channels=8"]
SHORT = ["training.steps=12", "training.batch_size=2", "training.window_targets=100", "training.audition_every=0"]
SHORT += ["training.threads=1", "training.precision=float32"]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    return write_tones(tmp_path_factory.mktemp("recordings"), [200, 250, 300], rate_hz=RATE_HZ, seconds=1, noise=0)


@pytest.fixture(scope="module")
def model(recordings, tmp_path_factory):
    learnt = ["training.steps=60", "training.learning_rate=0.02"]
    config = wavegen.load_config("small", [*TINY, *SHORT, *learnt])
    return wavegen.train(recordings, config, run=tmp_path_factory.mktemp("runs") / "run", device="cpu")


def test_generates_arrays_and_chunks_of_them(model):
    clips = model.generate(seconds=0.3, count=2, temperature=0.9, top_p=0.95, seed=3)
    assert clips.shape == (2, 2400)
    assert clips.dtype == np.float32
    assert np.abs(clips).max() <= 1
    chunks = list(model.stream(0.3, count=2, temperature=0.9, top_p=0.95, seed=3))
    assert len(chunks) > 1
    np.testing.assert_array_equal(np.concatenate(chunks, axis=1), clips)


def test_a_model_that_saw_quiet_windows_less_often_has_a_temperature_of_its_own(model, tmp_path):
    def same(**options):
        return model.generate(0.2, seed=1, **options)

    np.testing.assert_array_equal(same(), same(temperature=0.99))
    assert (same() != same(temperature=1)).any()
    alike = model.config.with_values("data", quiet_weight=1.0)
    save_checkpoint(replace(model.checkpoint, config=alike), tmp_path / "alike.safetensors")
    old = wavegen.load(tmp_path / "alike.safetensors", "cpu")
    np.testing.assert_array_equal(old.generate(0.2, seed=1), same(temperature=1))


# --- the best of several -----------------------------------------------------------------------------------------

LENGTH = 0.3


def candidates_of(model, monkeypatch, best_of, **options):
    """The best candidates, and what each was chosen from."""
    seen = []

    def rank(candidates, typical_bits):
        seen.append(list(candidates))
        return rank_candidates(candidates, typical_bits)

    monkeypatch.setattr("wavegen.sampling.candidates.rank_candidates", rank)
    return list(model.generate_best(LENGTH, best_of, **options)), seen


def test_the_first_candidate_is_the_clip_as_generated(model):
    plain = model.generate(LENGTH, count=3, seed=5)
    alone = [choice.waveform for choice in model.generate_best(LENGTH, 1, count=3, seed=5)]
    np.testing.assert_array_equal(alone, plain)


def test_candidates_differ_and_do_not_depend_on_the_count(model, monkeypatch):
    three, seen = candidates_of(model, monkeypatch, 7, count=3, seed=5)
    sounds = [one.classes for candidates in seen for one in candidates]
    assert len(np.unique(sounds, axis=0)) == 21
    monkeypatch.undo()
    two = list(model.generate_best(LENGTH, 7, count=2, seed=5))
    for one, other in zip(two, three, strict=False):
        assert (one.number, one.bits_per_sample) == (other.number, other.bits_per_sample)
        np.testing.assert_array_equal(one.waveform, other.waveform)


def test_the_most_typical_likelihood_is_chosen(model, monkeypatch):
    told = []
    (choice,), ((candidates),) = candidates_of(model, monkeypatch, 20, temperature=1.5, progress=told.append)
    bits = [one.bits_per_sample for one in candidates]
    assert choice.typical_bits == model.held_out_bits
    assert abs(choice.bits_per_sample - choice.typical_bits) == min(abs(one - choice.typical_bits) for one in bits)
    assert bits[choice.number - 1] == choice.bits_per_sample
    assert choice.bits_per_sample == pytest.approx(model.score(choice.waveform), rel=1e-6)
    assert choice.faults == choice.dropped == []
    assert told[-1] == 20 * round(LENGTH * RATE_HZ)


def test_after_a_prime_the_continuation_alone_is_scored(model, recordings):
    past = model.load_clip(recordings / "0.wav")[:700]
    (choice,) = model.generate_best(LENGTH, 2, prime=past)
    whole = np.concatenate([past, choice.waveform])
    added = len(whole) * model.score(whole) - len(past) * model.score(past)
    assert choice.bits_per_sample == pytest.approx(added / len(choice.waveform), rel=1e-4)


def test_faulty_candidates_are_dropped(model, monkeypatch):
    """The two best candidates are marked as faulty."""
    (first,), _ = candidates_of(model, monkeypatch, 6)
    faulty = {first.number - 1: [Fault("noise", "1.0 s of noise from 0.0 s on", 1.0)]}
    monkeypatch.setattr(Verdict, "faults", lambda _, clip=0: faulty.get(clip, []))
    (second,) = model.generate_best(LENGTH, 6)
    faulty[second.number - 1] = [Fault("silence", "silence from end to end", 10.0)]
    (third,) = model.generate_best(LENGTH, 6)
    assert len({first.number, second.number, third.number}) == 3
    assert third.faults == []
    assert str(third).endswith("; 2 of 6 dropped (noise 1, silence 1)")


def test_of_faulty_candidates_alone_the_least_faulty_is_kept(model, monkeypatch):
    monkeypatch.setattr(Verdict, "faults", lambda _, clip=0: [Fault("noise", f"noise {clip}", [3.0, 1.0, 2.0][clip])])
    (choice,) = model.generate_best(LENGTH, 3)
    assert choice.number == 2
    assert str(choice).startswith(
        "all 3 candidates are faulty (noise 3); number 2, the least faulty, is kept: noise 1; "
    )


def test_a_model_that_fell_silent_is_found_out(model):
    """Its output layer says silence, whatever came before: the likeliest audio there is."""
    average = {name: weight.copy() for name, weight in model.checkpoint.average.items()}
    average["output.bias"][model.quantizer.silence] += 1000
    silent = wavegen.TrainedModel(replace(model.checkpoint, average=average), "cpu")
    (choice,) = silent.generate_best(2.5, 3)
    assert choice.bits_per_sample == pytest.approx(0, abs=1e-6)
    assert choice.faults == silent.faults(choice.waveform) == [Fault("silence", "silence from end to end", 10.0)]
    assert len(choice.dropped) == 3


@pytest.mark.parametrize(
    ("seconds", "best_of", "text"),
    [
        (1, 0, "best_of: expected a whole number from 1 to 1,024, found 0"),
        (1, 1025, "best_of: expected a whole number from 1 to 1,024, found 1025"),
        (None, 2, "best_of: expected clips of finite length, found clips without end"),
        (
            100,
            1024,
            "best_of=1024: expected clips of at most 33 s, all candidates of one are held in memory",
        ),
    ],
)
def test_what_cannot_be_chosen_from_is_refused(model, seconds, best_of, text):
    with pytest.raises(UsageError, match=text):
        model.generate_best(seconds, best_of)


def test_continues_and_scores_what_it_reads(model, recordings):
    waveform = model.load_clip(recordings / "0.wav")
    assert waveform.shape == (RATE_HZ,)
    assert 0 < model.score(waveform) < 20
    assert not np.array_equal(model.generate(0.1, prime=waveform), model.generate(0.1))


def test_reports_when_it_scores_training_data(model, recordings):
    said = []
    clips = model.clips.load([recordings], said.append)
    (warning,) = said
    names = "; ".join(str(recordings / f"{i}.wav") for i in range(3))
    assert warning == f"3 of 3 clips were trained on, and the figures are not of held-out audio: {names}"
    assert [clip.trained_on for clip in clips] == [True] * 3


def test_knows_what_it_was_trained_on_in_another_format_and_under_another_name(model, recordings, tmp_path):
    samples, rate_hz = soundfile.read(recordings / "1.wav", dtype="int16")
    soundfile.write(tmp_path / "converted.flac", samples, rate_hz)
    samples[100] += 2000
    soundfile.write(tmp_path / "changed.wav", samples, rate_hz)
    soundfile.write(tmp_path / "shorter.wav", samples[:-1], rate_hz)
    said = []
    clips = model.clips.load([tmp_path], said.append)
    found = {Path(clip.name).name: clip.trained_on for clip in clips}
    assert found == {"converted.flac": True, "changed.wav": False, "shorter.wav": False}
    where = tmp_path / "converted.flac"
    assert said == [f"1 of 3 clips was trained on, and the figures are not of held-out audio: {where}"]


def test_without_its_folder_it_knows_the_same_bytes_and_exported_nothing(model, recordings, tmp_path):
    shutil.copy(recordings / "0.wav", tmp_path / "copy.wav")
    elsewhere = replace(model.checkpoint, config=model.config.with_values("data", folder=str(tmp_path / "gone")))
    (clip,) = wavegen.TrainedModel(elsewhere, "cpu").clips.load([tmp_path / "copy.wav"], lambda text: None)
    assert clip.trained_on is True
    exported = wavegen.TrainedModel(replace(model.checkpoint, weights={}, manifest=[]), "cpu")
    (clip,) = exported.clips.load([tmp_path / "copy.wav"], pytest.fail)
    assert clip.trained_on is None


def test_held_out_ends_were_not_trained_on_but_a_held_out_conversion_was(model, recordings, tmp_path):
    assert [clip.trained_on for clip in model.clips.held_out(notice=pytest.fail)] == [False] * 3
    shutil.copytree(recordings, tmp_path / "more")
    samples, rate_hz = soundfile.read(recordings / "0.wav", dtype="int16")
    soundfile.write(tmp_path / "more" / "held.flac", samples, rate_hz)
    (tmp_path / "held.txt").write_text("held.flac\n2.wav\n")
    config = wavegen.load_config("small", [*TINY, *SHORT, f"data.validation={tmp_path / 'held.txt'}"])
    trained = wavegen.train(tmp_path / "more", config, run=tmp_path / "run", device="cpu", notice=lambda text: None)
    said = []
    assert {clip.name: clip.trained_on for clip in trained.clips.held_out(notice=said.append)} == {
        "2.wav": False,
        "held.flac": True,
    }
    assert said == ["1 of 2 clips was trained on, and the figures are not of held-out audio: held.flac"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"seconds": float("nan")}, "seconds: expected a number above 0"),
        ({"seconds": None}, "seconds: expected a length, found none"),
        (
            {"seconds": 1, "threads": 2, "engine": "torch"},
            "threads: the torch engine runs on one thread",
        ),
        ({"seconds": 1, "temprature": 2}, "unknown keyword 'temprature'; did you mean 'temperature'?"),
    ],
)
def test_options_out_of_range_are_refused(model, options, text):
    with pytest.raises(UsageError, match=f"^{re.escape(text)}"):
        model.generate(**options)


def test_describes_itself(model):
    assert re.fullmatch(r"<TrainedModel wavenet, 8,000 Hz, 60 steps, \d\.\d{3} bits/sample held out>", repr(model))


@pytest.mark.parametrize("waveform", [[], [[0.0, 0.1]], [np.nan]])
def test_what_is_no_waveform_is_refused(model, waveform):
    with pytest.raises(UsageError, match="expected a waveform of finite numbers"):
        model.score(waveform)


def test_loads_what_was_trained(model, recordings, tmp_path):
    config = wavegen.load_config("small", [*TINY, *SHORT])
    trained = wavegen.train(recordings, config, run=tmp_path / "run", device="cpu", notice=lambda text: None)
    loaded = wavegen.load(tmp_path / "run", device="cpu")
    np.testing.assert_array_equal(loaded.generate(0.1), trained.generate(0.1))
    assert loaded.sample_rate_hz == RATE_HZ


def test_the_readmes_example_runs(recordings, tmp_path, monkeypatch):
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    (example,) = [block for block in blocks if '"training.minutes=30"' in block]
    small = ", ".join(map(repr, [*TINY, *SHORT]))
    (tmp_path / "my_recordings").symlink_to(recordings)
    (tmp_path / "held_out.wav").symlink_to(recordings / "0.wav")
    monkeypatch.chdir(tmp_path)
    names = {}
    for large, few in [('"training.minutes=30"', small), ("seconds=5", "seconds=0.2"), ("seconds=60", "seconds=0.2")]:
        assert large in example
        example = example.replace(large, few)
    exec(example, names)
    assert names["clips"].shape == (4, 0.2 * RATE_HZ)
    assert names["bits"] > 0
    assert (tmp_path / "runs" / "python" / "config.yaml").is_file()


def test_the_example_in_the_packages_docstring_writes_a_file(tmp_path, monkeypatch):
    example = "\n".join(re.findall(r"^    (.*)", wavegen.__doc__, re.MULTILINE))
    monkeypatch.chdir(tmp_path)
    exec(example.replace("seconds=2", "seconds=0.1"), {})
    assert soundfile.info(tmp_path / "new.wav").frames == 1600


def test_training_takes_several_files_calls_its_observers_and_says_what_is_little(recordings, tmp_path, monkeypatch):
    class Counter(Observer):
        steps = 0

        def on_step(self, entry):
            self.steps += 1

    counter = Counter()
    config = wavegen.load_config("small", [*TINY, *SHORT])
    monkeypatch.setenv("HOME", str(recordings))
    said = []
    model = wavegen.train(
        ["~/0.wav", "~/[12].wav"], config, run=tmp_path / "run", device="cpu", observers=[counter], notice=said.append
    )
    assert counter.steps == 12
    assert len([clip for clip in model.checkpoint.manifest if clip["split"] == "train"]) == 3
    assert "only 2.7 s of sound to train on; 5 minutes are enough for a try" in said
    assert any(text.startswith("only 3 clips held out, 0.3 s: bits/sample on so little say nothing") for text in said)


def test_tensorboard_events_read_back(recordings, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from wavegen.report.training import run_observers

    config = wavegen.load_config(
        "small", [*TINY, *SHORT, "training.audition_every=12", "training.audition_seconds=0.2"]
    )
    wavegen.train(recordings, config, run=tmp_path / "run", device="cpu", observers=run_observers(tmp_path / "run"))
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert {"training/train_loss", "validation/loss", "baselines/order-2_Markov"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("validation/loss")] == [12]
    (audio,) = events.Audio("audition")
    assert (audio.sample_rate, audio.content_type) == (RATE_HZ, "audio/wav")
    (picture,) = events.Images("audition")
    assert picture.width > 500
    assert (tmp_path / "run" / "auditions" / "step-00000012.png").is_file()


# --- how recordings are prepared ---------------------------------------------------------------------------------


@pytest.fixture
def quiet_recording(tmp_path):
    """A tone on an offset between two seconds of silence."""
    tone = 0.05 * np.sin(2 * np.pi * 200 * np.arange(RATE_HZ) / RATE_HZ)
    clip = np.concatenate([np.zeros(2 * RATE_HZ), tone, np.zeros(2 * RATE_HZ)]) + 0.01
    soundfile.write(tmp_path / "quiet.wav", clip, RATE_HZ, subtype="FLOAT")
    return tmp_path / "quiet.wav"


def test_recordings_are_prepared_as_in_training(model, quiet_recording):
    waveform = model.load_clip(quiet_recording)
    assert len(waveform) < 1.3 * RATE_HZ
    assert np.abs(waveform).max() == pytest.approx(10 ** (-1 / 20), rel=1e-3)


@pytest.mark.parametrize(
    ("bits", "baselines", "words"),
    [
        (4.5, {"order-2 Markov": 4.3, "linear prediction": 3.7}, "order-2 Markov has 4.30"),
        (4.0, {"order-2 Markov": 4.3, "linear prediction": 3.7}, None),
        (6.3, {"order-2 Markov": 6.8, "linear prediction": 5.1}, "linear prediction has 5.10"),
        (5.9, {"order-2 Markov": 6.8, "linear prediction": 5.1}, None),
        (10.1, {"unigram": 12.0, "linear prediction": 9.0}, "linear prediction has 9.00"),
        (3.0, {}, "never validated"),
    ],
)
def test_a_model_that_predicts_worse_than_simple_ones_is_undertrained(model, monkeypatch, bits, baselines, words):
    metrics = {"validation": {"held_out_loss": bits, "baselines": baselines}}
    monkeypatch.setattr(model, "checkpoint", replace(model.checkpoint, metrics=metrics, step=60))
    warning = model.undertrained_warning()
    assert warning is None if words is None else words in warning


@pytest.mark.parametrize(
    ("costs", "precision"),
    [
        ({"bfloat16": 0.0001, "int8": 0.0}, "bfloat16"),
        ({"bfloat16": 0.001, "int8": 0.0}, "float32"),
        ({}, "float32"),
    ],
)
def test_lower_precision_is_chosen_only_where_it_costs_little(model, costs, precision):
    """And int8 never: it must be asked for."""
    said = []
    generator = replace(model.generator, precision_costs=costs)
    generator.prepare(0.05, SamplingOptions(seed=1), notice=said.append)
    assert f", {precision} weights" in said[0]


def test_a_prime_keeps_its_silence(model, quiet_recording):
    waveform = model.load_prime(quiet_recording)
    assert len(waveform) == 5 * RATE_HZ
    assert np.abs(waveform).max() == pytest.approx(10 ** (-1 / 20), rel=1e-3)
    assert np.abs(waveform[:RATE_HZ]).max() < 0.05


def test_clips_to_compare_are_as_they_are(model, quiet_recording):
    (clip,) = load_unprepared([quiet_recording], RATE_HZ, pytest.fail)
    np.testing.assert_array_equal(clip, load_waveform(quiet_recording, Preparation(RATE_HZ)))


def test_an_old_checkpoint_leaves_recordings_as_they_are(model, quiet_recording, tmp_path, monkeypatch):
    """One from before there were the keys of preparation, and a profile of the recordings."""
    sections = model.config.model_dump()
    del sections["data"]["following"]
    sections["audio"] = {"sample_rate_hz": RATE_HZ}
    metrics = {name: value for name, value in model.checkpoint.metrics.items() if name != "recordings"}
    monkeypatch.setattr(type(model.config), "to_yaml", lambda _: json.dumps(sections))
    save_checkpoint(replace(model.checkpoint, metrics=metrics), tmp_path / "old.safetensors")
    monkeypatch.undo()
    old = wavegen.load(tmp_path / "old.safetensors", "cpu")
    expected = load_waveform(quiet_recording, Preparation(RATE_HZ))
    np.testing.assert_array_equal(old.load_clip(quiet_recording), expected)
    np.testing.assert_array_equal(old.load_prime(quiet_recording), expected)
    assert old.config.data.following == 0
    assert "recordings" not in old.checkpoint.metrics
    assert [fault.kind for fault in old.faults(np.zeros(3 * RATE_HZ))] == ["dead silence"]
    assert (
        RecordingProfile.from_dict(model.checkpoint.metrics["recordings"]).clip_seconds
        == [pytest.approx(0.9, abs=0.05)] * 3
    )


def test_the_package_has_no_other_names():
    assert {"load", "train", "load_config"} <= set(dir(wavegen))
    with pytest.raises(AttributeError, match="no attribute 'lood'"):
        _ = wavegen.lood
    assert "torch" in sys.modules


# --- waveforms from Python ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.int32])
def test_integers_are_scaled_as_the_samples_of_a_file(model, dtype):
    waveform = 0.5 * np.sin(np.arange(800) / 7)
    full, offset = 2.0 ** (8 * np.dtype(dtype).itemsize - 1), 128 if dtype == np.uint8 else 0
    integers = np.round(waveform * full + offset).astype(dtype)
    expected = ((integers.astype(np.float64) - offset) / full).astype(np.float32)
    np.testing.assert_array_equal(as_mono(integers), expected)
    assert model.score(integers) == model.score(expected)


@pytest.mark.parametrize(
    ("waveform", "problem"),
    [
        (np.array([0.0, 32767.0]), r"expected samples within \[-1, 1\], found 32,767; divide integers"),
        ([100, 32767], r"expected samples within \[-1, 1\], found 32,767"),
        (np.zeros((100, 2)), r"found the shape \(100, 2\)"),
        (np.array([0.0, np.nan]), "expected a waveform of finite numbers"),
        ("clip.wav", r"expected a waveform of numbers.*load_clip\(PATH\) reads files"),
    ],
    ids=["floats", "list", "stereo", "nan", "path"],
)
def test_what_has_no_scale_of_a_waveform_is_refused(model, waveform, problem):
    for use in (model.score, model.faults, lambda prime: model.generate(0.01, prime=np.asarray(prime))):
        with pytest.raises(UsageError, match=problem):
            use(waveform)


def test_a_prime_may_be_a_file(model, recordings):
    expected = model.generate(0.05, seed=1, prime=model.load_prime(recordings / "0.wav"))
    for prime in (recordings / "0.wav", str(recordings / "0.wav")):
        np.testing.assert_array_equal(model.generate(0.05, seed=1, prime=prime), expected)
    with pytest.raises(UsageError, match=r"gone\.wav: expected an audio file, found nothing there"):
        model.generate(0.05, prime="gone.wav")


def test_a_prime_is_the_end_of_a_long_file(model, recordings):
    whole = model.load_prime(recordings / "0.wav")
    for seconds in (0.0, 0.1, 0.25, 99.0):
        n = min(len(whole), round(seconds * model.sample_rate_hz))
        end = model.load_prime(recordings / "0.wav", last_seconds=seconds)
        np.testing.assert_array_equal(end, whole[len(whole) - n :])
