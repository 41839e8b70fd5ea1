"""The command line as its users meet it: real files, and real processes and signals where they matter."""

import csv
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import typer

from command_line import COMMAND, Process, n_steps, run_alone, run_interpreter, wait_until, wavegen
from mixtures import MIXTURE_KINDS
from trainings import assert_same_state, newest
from wavegen.__main__ import Stopped
from wavegen.api import load
from wavegen.audio.waveform import Preparation, load_waveform
from wavegen.cli import app
from wavegen.config import load_config
from wavegen.runs.checkpoint import load_checkpoint
from wavegen.runs.run_folder import RunFolder

TINY_YAML = """
audio:
  sample_rate_hz: 8000
model:
  cycles: 1
  dilation_cycle: 5
  residual_channels: 12
  gate_channels: 12
  skip_channels: 16
  head_channels: 16
training:
  batch_size: 4
  window_targets: 200
  steps: 20
  threads: 1
  precision: float32
  checkpoint_every: 5
  validate_every: 10
  audition_every: 20
  audition_seconds: 0.2
"""

QUIET = ["--set", "training.audition_every=0"]


def write_recordings(folder):
    """A folder as people have it: many formats, rates and channels; a text file; a broken file; a format to convert."""
    folder.mkdir()
    rng = np.random.default_rng(3)
    endings = ["wav", "flac", "ogg", "mp3", "aiff"]
    for i in range(15):
        rate, channels = [8000, 16000, 44100][i % 3], 1 + i % 2
        time_s = np.arange(rate) / rate
        clip = 0.4 * np.sin(2 * np.pi * (200 + 20 * i) * time_s) + 0.02 * rng.standard_normal(rate)
        soundfile.write(folder / f"clip {i}.{endings[i % 5]}", np.repeat(clip[:, None], channels, axis=1), rate)
    (folder / "notes.txt").write_text("not audio")
    (folder / "broken.wav").write_bytes(b"RIFF\x00\x00\x00\x00WAVEjunk")
    (folder / "phone.m4a").write_bytes(b"\x00\x00\x00\x20ftypM4A ")
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A user's folder with recordings, a config, and a run that the command line trained on them."""
    home = tmp_path_factory.mktemp("home")
    write_recordings(home / "recordings")
    (home / "tiny.yaml").write_text(TINY_YAML)
    done = wavegen("train", "recordings", "--config", "tiny.yaml", cwd=home)
    (home / "train.stderr").write_text(done.stderr)
    return home


def test_help_is_light_and_complete():
    code = "import sys, wavegen.cli; sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'librosa')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    text = wavegen("--help").stdout
    commands = typer.main.get_command(app).commands
    assert len(commands) >= 7
    assert all(f"\n  {name} " in text for name in commands)
    assert wavegen("--version").stdout.startswith("wavegen 0.")


def test_train_prints_its_plan_and_its_result(home):
    said = (home / "train.stderr").read_text()
    assert "1,023" not in said
    for expected in ("receptive field  32 samples (4.0 ms)", "broken.wav", "ffmpeg", "uniform 8.000", "order-2 Markov"):
        assert expected in said
    run = RunFolder(home / "runs" / "recordings")
    assert [path.name for path in run.step_checkpoints()] == [f"step-{step:08d}.safetensors" for step in (10, 15, 20)]
    assert run.best_checkpoint.is_file()
    assert run.audition_file(20).is_file()
    assert run.audition_file(20).with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert "this model is undertrained (20 steps, " in said
    assert "last audition" not in said
    assert "Generate audio with" in said


def test_a_configuration_may_name_the_folder(home, tmp_path):
    folder = f"data: {{folder: {json.dumps(str(home / 'recordings'))}}}\n"
    (tmp_path / "tiny.yaml").write_text(TINY_YAML + folder)
    wavegen("train", "--config", "tiny.yaml", "--steps", "1", cwd=tmp_path)
    assert (tmp_path / "runs" / "recordings" / "config.yaml").is_file()
    assert "expected a folder of recordings" in wavegen("train", cwd=tmp_path, exit_code=2).stderr


def test_recordings_are_folders_files_patterns_and_lists(home, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for i in range(6):
        name = ("a", "b")[i % 2]
        (tmp_path / name).mkdir(exist_ok=True)
        shutil.copy(home / "recordings" / f"clip {5 * (i // 2)}.wav", tmp_path / name / f"{i}.wav")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "list.txt").write_text("../a/0.wav\n../b\n")
    (tmp_path / "deep" / "own.yaml").write_text(f"{TINY_YAML}data: {{folder: [../a, ~/b]}}\n")
    expected = {
        ("a", "b", "--set", "data.labels=subfolders", "--set", "model.label_channels=2"): ("a-b", 6),
        ("a/0.wav", "a/2.wav", "b/1.wav"): ("a-b", 3),
        ("a/4.wav",): ("4", 1),
        ("b/*.wav",): ("b", 3),
        ("deep/list.txt",): ("list", 4),
        ("--config", "deep/own.yaml"): ("a-b", 6),
    }
    for given, (name, n_files) in expected.items():
        options = ["--config", home / "tiny.yaml", "--steps", "1", *QUIET]
        for more in (["--run=~/runs/z"], ["--run=~/runs/z", "--resume"]):
            wavegen("train", *options, *given, *more, cwd=tmp_path)
        checkpoint = newest(tmp_path / "runs" / "z")
        assert len([clip for clip in checkpoint.manifest if clip["split"] == "train"]) == n_files
        labels = {clip["label"] for clip in checkpoint.manifest}
        assert labels == ({"a", "b"} if "data.labels=subfolders" in given else {None})
        shutil.rmtree(tmp_path / "runs" / "z")
        wavegen("train", *options, *given, cwd=tmp_path)
        assert [run.name for run in (tmp_path / "runs").iterdir()] == [name]
        shutil.rmtree(tmp_path / "runs")


def test_a_run_inside_its_recordings_is_left_out(home, tmp_path):
    folder = tmp_path / "recordings"
    shutil.copytree(home / "recordings", folder)
    for run in ("runs/recordings", "other"):
        said = wavegen("train", ".", "--run", run, "--config", home / "tiny.yaml", "--steps", "1", cwd=folder).stderr
        said = " ".join(said.split())
        assert ("the folder of a run, whose audio is generated" in said) == (run == "other")
    wavegen("generate", "other", "--seconds", "0.1", cwd=folder)
    said = " ".join(wavegen("train", "--run", "other", "--resume", "--steps", "2", cwd=folder).stderr.split())
    assert "resumed at step 1 of 2" in said
    assert "generated by wavegen, as its comment says" in said
    unusable = json.loads(wavegen("inspect", folder, "--json").stdout)["unusable"]
    assert {"generated.wav", "other/", "runs/recordings/"} < {each["name"] for each in unusable}


def test_train_hands_all_options_on(home, tmp_path):
    def train(name, *more, **how):
        run = tmp_path / name
        return wavegen("train", "recordings", "--config", "tiny.yaml", "--run", run, *QUIET, *more, cwd=home, **how)

    train("run", "--steps", "2", "--seed", "5")
    frozen = load_checkpoint(RunFolder(tmp_path / "run").best_checkpoint).config.training
    assert (frozen.steps, frozen.seed) == (2, 5)
    changed = ["--seed", "6", "--steps", "3", "--resume"]
    assert "--accept-changes" in train("run", *changed, exit_code=2).stderr
    assert "changed: training.seed: 5 -> 6" in train("run", *changed, "--accept-changes").stderr
    assert "0.001 min: 1 step (" in train("timed", "--minutes", "0.001").stderr
    assert load_checkpoint(RunFolder(tmp_path / "timed").best_checkpoint).config.training.steps == 1
    both = train("both", "--minutes", "10", "--steps", "2").stderr
    assert "10 min: " in both
    assert "2 steps are too few to learn much: expect noise; train longer" in both
    assert n_steps(tmp_path / "both") == 2
    resumed = train("both", "--resume", "--minutes", "0.001").stderr
    assert "resumed at step 2 of 3;" in resumed
    assert n_steps(tmp_path / "both") == 3
    complete = train("both", "--resume", "--steps", "3").stderr
    assert "complete at step 3 of 3; train on with --resume --minutes 30\n" in complete
    assert ["receptive field" in said for said in (both, resumed, complete)] == [True, False, False], "the plan, once"


def test_generate_writes_numbered_files_that_the_same_seed_repeats(home, tmp_path):
    def generate(*more):
        wavegen(
            "generate", home / "runs/recordings", "--seconds", "0.25", "--overwrite", "-o", tmp_path / "new.wav", *more
        )
        files = sorted(tmp_path.glob("new*.wav"))
        return [soundfile.read(file, dtype="int16")[0] for file in files]

    first = generate("--count", "3", "--seed", "7")
    assert [clip.shape for clip in first] == [(2000,)] * 3
    assert not np.array_equal(first[0], first[1])
    again = generate("--count", "3", "--seed", "7")
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
    for file in tmp_path.glob("new-*.wav"):
        file.unlink()
    alone = generate("--seed", "7")
    assert np.array_equal(alone[0], first[0])  # a clip's audio does not depend on how many are made beside it


def test_generate_draws_a_seed_and_prints_it(home, tmp_path):
    def generate(name, *more):
        said = wavegen("generate", home / "runs/recordings", "--seconds", "0.1", "-o", tmp_path / name, *more).stderr
        return said, soundfile.read(tmp_path / name, dtype="int16")[0]

    said, clip = generate("a.wav")
    (seed,) = re.findall(r"^seed: (\d+)$", said, re.MULTILINE)
    assert 0 <= int(seed) < 1_000_000
    assert not np.array_equal(generate("b.wav")[1], clip)  # chance of a false alarm: 1e-6
    said, again = generate("c.wav", "--seed", seed)
    assert "seed: " not in said
    np.testing.assert_array_equal(again, clip)


def test_generate_takes_the_next_free_name(home, tmp_path):
    def generate(*more, **how):
        return wavegen("generate", home / "runs/recordings", "--seconds", "0.1", *more, cwd=tmp_path, **how)

    assert "generated.wav: " in generate().stderr
    assert "generated-2.wav: " in generate().stderr
    assert "generated-3.wav: " in generate().stderr
    first = (tmp_path / "generated.wav").read_bytes()
    assert "already exists" in generate("-o", "generated.wav", exit_code=2).stderr
    assert (tmp_path / "generated.wav").read_bytes() == first
    generate("--overwrite")
    assert (tmp_path / "generated.wav").read_bytes() != first
    generate("--count", "2")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("generated-2-1.wav", "generated-2-2.wav"),  # for generated-2.wav is one of the first name's two files
        *("generated-2.wav", "generated-3.wav", "generated.wav"),
    ]


def test_generate_one_shots(home, tmp_path):
    """Neither a tone nor noise ever fades: the clips have the maximum length, and a notice is printed."""
    new = ["generate", home / "runs/recordings", "--one-shot", "--seed", "3", "--seconds", "0.5", "-o"]
    said = wavegen(*new, tmp_path / "one.wav").stderr
    assert f"{tmp_path / 'one.wav'}: 1 one-shot, 0.50 s; 1 had not faded: raise --seconds, or train longer" in said
    plain = load(home / "runs" / "recordings", "cpu").generate(0.5, seed=3)[0]
    np.testing.assert_allclose(soundfile.read(tmp_path / "one.wav")[0], plain, atol=2.0**-15)
    said = wavegen(*new, tmp_path / "many.wav", "--count", "3").stderr
    assert "3 one-shots, 0.50 to 0.50 s long; 3 had not faded" in said
    assert len(list(tmp_path.glob("many-*.wav"))) == 3
    prime = home / "recordings" / "clip 1.flac"
    for more, words in [
        (
            ["--best-of", "2"],
            "--one-shot: expected a finite --seconds and none of --best-of, --prime, --mel, --mel-from and --features",
        ),
        (["--seconds", "inf"], "--one-shot: expected a finite --seconds"),
        (["--prime", prime, "--with-prime"], "--one-shot: expected a finite --seconds"),
        (["--prime", prime], "--one-shot: expected a finite --seconds"),
    ]:
        assert words in wavegen(*new, tmp_path / "none.wav", *more, exit_code=2).stderr
    assert not (tmp_path / "none.wav").exists()


def test_evaluate_samples_of_a_run(home, tmp_path):
    evaluate = ["evaluate", home / "runs/recordings", "--samples", "--clips", "2", "--seconds", "0.5"]
    document = json.loads(wavegen(*evaluate, "--json").stdout)
    assert set(document) == {"samples", "parts", "heard", "likeness", "references"}
    assert document["parts"] == {}, "clips of 0.5 s have no two ends"
    assert list(document["heard"]) == ["these clips", "recordings"]
    assert set(document["heard"]["recordings"]) == {"pitch_hz", "voiced", "onsets", "pauses"}
    assert list(document["references"]) == ["recordings", "noise of their spectrum", "0.1 s repeated"]
    figures = document["samples"]
    assert set(figures) == set(document["references"]["recordings"])
    assert {"score", "interval", "loud_db", "silent_share", "half_silent", "centroid_hz"} < set(figures)
    assert (figures["n_clips"], figures["seconds"]) == (2, 1.0)
    assert document["likeness"] < 0.5, "noise, for the model is hardly trained"
    assert json.loads(wavegen(*evaluate, "--json").stdout) == document
    other = json.loads(wavegen(*evaluate, "--json", "--seed", "1").stdout)
    assert other["samples"] != figures
    assert other["references"] == document["references"]
    shots = json.loads(wavegen(*evaluate, "--json", "--one-shot").stdout)["samples"]
    assert (shots["n_clips"], shots["seconds"]) == (2, 1.0)
    shown = " ".join(wavegen(*evaluate, "--plot", tmp_path / "beside.png").stdout.split())
    assert (tmp_path / "beside.png").read_bytes().startswith(b"\x89PNG")
    assert "Sample statistics of 2 clips, 1.0 s (lower scores are better)" in shown
    where = "worse than the better impostor" if document["likeness"] < 0 else "of the way from the better impostor's"
    assert where in shown
    assert "What is heard" in shown
    assert "onsets a second 2.0 2.0 to 2.0" in shown


def test_evaluate_samples_of_given_clips(home, tmp_path):
    """Recordings sound more like the recordings than noise does."""
    clips = tmp_path / "clips"
    clips.mkdir()
    for i in range(3):
        noise = np.random.default_rng(i).uniform(-0.3, 0.3, 8000)
        soundfile.write(clips / f"{i}.wav", noise, 8000)
    (clips / "broken.wav").write_bytes(b"no audio")
    evaluate = ["evaluate", home / "runs/recordings", "--samples", "--json"]
    done = wavegen(*evaluate, clips)
    assert "skipped: " in done.stderr
    noise = json.loads(done.stdout)
    assert (noise["samples"]["n_clips"], noise["samples"]["seconds"]) == (3, 3.0)
    recordings = json.loads(wavegen(*evaluate, home / "recordings").stdout)
    assert recordings["samples"]["n_clips"] == 15
    assert recordings["samples"]["score"] < noise["samples"]["score"] / 4
    assert recordings["likeness"] > noise["likeness"]


def test_samples_of_an_exported_model_are_compared_with_given_recordings(home, tmp_path):
    """The same figures as those of its run, which knows its recordings: all but those that it held out."""
    run = home / "runs/recordings"
    wavegen("export", run, "-o", tmp_path / "model.safetensors", "--precision", "float32")
    chosen = ["--samples", "--clips", "2", "--seconds", "0.5", "--json"]
    own = json.loads(wavegen("evaluate", run, *chosen).stdout)
    manifest = load_checkpoint(RunFolder(run).best_checkpoint).manifest
    trained_on = [home / "recordings" / clip["name"] for clip in manifest if clip["split"] == "train"]
    given = [part for path in trained_on for part in ("--recordings", path)]
    done = wavegen("evaluate", tmp_path / "model.safetensors", *chosen, *given)
    assert json.loads(done.stdout)["references"] == own["references"]
    noise = tmp_path / "noise"
    noise.mkdir()
    for i in range(2):
        soundfile.write(noise / f"{i}.wav", np.random.default_rng(i).uniform(-0.3, 0.3, 8000), 8000)
    (noise / "broken.wav").write_bytes(b"no audio")
    done = wavegen("evaluate", run, *chosen, "--recordings", noise)
    assert "skipped: " in done.stderr
    assert json.loads(done.stdout)["references"] != own["references"]
    (noise / "1.wav").unlink()
    said = wavegen("evaluate", run, *chosen, "--recordings", noise, exit_code=1).stderr
    assert f"{noise}: expected two clips, or 20 s, of sound to compare with, found less" in said


def test_evaluate_refuses_what_has_no_sample_statistics(home, voices, tmp_path):
    run = home / "runs" / "recordings"
    wavegen("export", run, "-o", tmp_path / "exported.safetensors")
    wav = home / "recordings" / "clip 0.wav"
    for arguments, words in [
        ([voices / "mel", "--samples"], "sample statistics: not for a model whose sound follows its mel spectrograms"),
        (
            [tmp_path / "exported.safetensors", "--samples"],
            "sample statistics: an exported model does not know its recordings; give --recordings DIR",
        ),
        ([run, "--clips", "2"], "--clips: not with bits/sample, only with --samples"),
        ([run, "--seconds", "2"], "--seconds: not with bits/sample, only with --samples"),
        ([run, "--seed", "2"], "--seed: not with bits/sample, only with --samples"),
        ([run, "--recordings", home], "--recordings: not with bits/sample, only with --samples"),
        ([run, "--one-shot"], "--one-shot: not with bits/sample, only with --samples"),
        ([run, "--plot", "x.png"], "--plot: not with bits/sample, only with --samples"),
        ([run, "--samples", "--plot", "x.jpg"], "x.jpg"),
        ([run, "--samples", "--summary"], "--summary: not with --samples"),
        ([run, "--samples", wav, "--label", "anna"], "--label: not with --samples"),
        ([run, "--samples", "--csv", "-"], "--csv: not with --samples"),
        ([run, "--samples", wav, "--seed", "2"], "--seed: not with clips that are there already"),
        ([run, "--samples", wav, "--one-shot"], "--one-shot: not with clips that are there already"),
        ([run, "--samples", "nowhere"], "nowhere"),
        ([run, "--samples", "--clips", "0"], "--clips"),
        ([run, "--samples", "--seconds", "0"], "--seconds: expected a number above 0"),
    ]:
        said = wavegen("evaluate", *arguments, exit_code=2).stderr
        assert words in " ".join(said.split()), arguments
    broken = home / "recordings" / "broken.wav"
    said = wavegen("evaluate", run, "--samples", broken, exit_code=1).stderr
    assert "expected audio to score, found none that can be used" in said


def test_generate_hands_all_options_on(home, tmp_path):
    model = load(home / "runs" / "recordings", "cpu")
    recording = home / "recordings" / "clip 1.flac"
    options = {
        "count": 2,
        "seed": 3,
        "temperature": 0.2,
        "top_k": 20,
        "top_p": 0.7,
        "prime": model.load_clip(recording),
    }
    words = [f"--{name.replace('_', '-')}={recording if name == 'prime' else value}" for name, value in options.items()]
    wavegen("generate", home / "runs/recordings", "--seconds", "0.1", "-o", tmp_path / "new.wav", *words)
    written = np.stack([soundfile.read(file, dtype="float32")[0] for file in sorted(tmp_path.glob("new-*.wav"))])
    np.testing.assert_allclose(written, model.generate(0.1, **options), atol=2.0**-15)
    for name in options.keys() - {"count"}:  # and none of them is without effect
        without = model.generate(0.1, **{key: value for key, value in options.items() if key != name})
        assert np.abs(written - without).max() > 0.01, name


def test_generate_keeps_the_best_of_several_and_repeats_it(home, tmp_path):
    def generate(name, *more):
        length = ("--seconds", "0.25", "--seed", "7", "--count", "2")
        done = wavegen("generate", home / "runs/recordings", *length, "-o", tmp_path / f"{name}.wav", *more)
        return [file.read_bytes() for file in sorted(tmp_path.glob(f"{name}-*.wav"))], done.stderr

    best, said = generate("best", "--best-of", "5")
    assert generate("again", "--best-of", "5", "--threads", "1")[0] == best
    for i in (1, 2):
        assert re.search(rf"best-{i}.wav: number [1-5] of 5, \d.\d\d bits/sample, typical \d.\d\d\n", said)
    assert "2 x 0.25 s" in said
    assert generate("one", "--best-of", "1")[0] == generate("plain")[0]


def test_generate_reports_the_faults_of_a_clip(home, tmp_path):
    hot = ("generate", home / "runs/recordings", "--temperature", "100")
    said = wavegen(*hot, "--seconds", "1.5", "-o", "new.wav", cwd=tmp_path).stderr
    verdict = said.splitlines()[-1]
    assert re.match(r"new\.wav: \d+ dB (louder|quieter) than|new\.wav: 1\.5 s of noise from 0\.0 s on", verdict)
    longer = f"train longer: wavegen train --run {home / 'runs/recordings'} --resume --minutes 30"
    assert verdict.endswith(f"1.5 s of noise from 0.0 s on; leave out --temperature 100; {longer}"), "hardly trained"
    said = wavegen(*hot, "--seconds", "1.5", "-o", "new.wav", "--best-of", "2", "--overwrite", cwd=tmp_path).stderr
    assert re.search(r"new\.wav: all 2 candidates are faulty \(.*noise 2.*\); number ", said)
    assert "1.5 s of noise from 0.0 s on" in said
    assert (tmp_path / "new.wav").is_file()
    many = wavegen(*hot, "--seconds", "1.2", "-o", "x.wav", "--count", "12", cwd=tmp_path).stderr
    assert many.count("s of noise") == 10
    assert many.endswith("\n... 2 more of the 12 clips are faulty\n")
    said = wavegen(*hot, "--seconds", "1.2", "-o", "y.wav", "--best-of", "2", cwd=tmp_path).stderr
    assert said.count(longer) == 1
    wavegen("export", home / "runs/recordings", "-o", tmp_path / "model.safetensors")
    hot = ("generate", tmp_path / "model.safetensors", "--temperature", "100")
    said = wavegen(*hot, "--seconds", "1.5", "-o", "exported.wav", cwd=tmp_path).stderr
    assert "exported.wav: " in said
    assert "wavegen train" not in said, "it is no run"


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg"])
def test_generate_continues_a_recording_at_another_rate(home, tmp_path, ending):
    output = tmp_path / f"new.{ending}"
    prime = home / "recordings" / "clip 2.ogg"  # a second at 44.1 kHz
    new = ("--with-prime", "--seconds", "0.25", "--seed", "1", "-o", output)
    wavegen("generate", home / "runs/recordings", "--prime", prime, *new)
    written, rate_hz = soundfile.read(output)
    assert (rate_hz, len(written)) == (8000, 8000 + 2000)
    heard = load_waveform(prime, Preparation(8000, level="peak"))
    assert np.corrcoef(written[:8000], heard)[0, 1] > 0.99
    assert np.abs(written[:8000]).max() == pytest.approx(np.abs(heard).max(), abs=0.1), "as loud as in training"


@pytest.mark.slow
def test_generate_to_a_pipe_has_true_sizes_and_words_on_stderr(home):
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as pipe:
        done = run_alone("generate", home / "runs/recordings", "--seconds", "0.3", "-o", "-", stdout=writer)
        os.close(writer)
        written = pipe.read()
    samples, rate = soundfile.read(io.BytesIO(written))
    assert (len(samples), rate) == (2400, 8000)
    assert written[-4808:-4800] == b"data" + (4800).to_bytes(4, "little")
    assert "real time" in done.stderr


def test_a_closed_pipe_ends_generating_quietly(home):
    reader, writer = os.pipe()
    with Process("generate", home / "runs/recordings", "--seconds", "inf", "-o", "-", stdout=writer) as process:
        os.close(writer)
        assert os.read(reader, 4000)[:4] == b"RIFF"
        os.close(reader)
        assert process.wait() == 0
        said = process.words()[1]
    assert "Traceback" not in said
    assert "error" not in said


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopping_generate_leaves_a_file_that_plays(home, tmp_path, number, exit_code):
    output = tmp_path / "endless.wav"
    with Process("generate", home / "runs/recordings", "--seconds", "inf", "-o", output) as process:
        wait_until(lambda: output.exists() and output.stat().st_size > 8000)
        process.send_signal(number)
        assert process.wait() == exit_code
        said = process.words()[1]
    assert "written to" in said
    assert "Traceback" not in said
    assert soundfile.info(output).frames >= 3200  # all but the tenth of a second that was under way


def start_training(home, run, steps, *more, **how):
    """Train in a process of its own, until a dozen steps are made."""
    arguments = ["train", "recordings", "--config", "tiny.yaml", "--steps", steps, "--run", run, *QUIET, *more]
    process = Process(*arguments, cwd=home, **how)
    wait_until(lambda: n_steps(run) >= 12)
    return process


def test_kill_and_resume_equals_an_undisturbed_run(home, tmp_path):
    run = tmp_path / "whole"
    wavegen("train", "recordings", "--config", "tiny.yaml", "--steps", "60", "--run", run, *QUIET, cwd=home)
    with start_training(home, tmp_path / "killed", steps=60, slow_disk=True) as process:  # seconds, for its checkpoints
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert n_steps(tmp_path / "killed") < 60
    wavegen("train", "--run", tmp_path / "killed", "--resume")
    assert newest(tmp_path / "whole").step == 60
    assert_same_state(newest(tmp_path / "whole"), newest(tmp_path / "killed"))
    killed = RunFolder(tmp_path / "killed")
    assert [entry["step"] for entry in killed.metrics() if "train_loss" in entry] == list(range(1, 61))


@pytest.mark.parametrize(("number", "exit_code", "more"), [(signal.SIGINT, 130, ["-q"]), (signal.SIGTERM, 143, [])])
def test_stopping_train_saves_and_prints_the_line_that_resumes(home, tmp_path, number, exit_code, more):
    run = tmp_path / "run"
    with start_training(home, run, 100_000, *more) as process:
        process.send_signal(number)
        assert process.wait() == exit_code
        said = process.words()[1]
    assert f"wavegen train --run {run} --resume" in said
    assert "Traceback" not in said
    stopped_at = n_steps(run)
    assert load_checkpoint(RunFolder(run).step_checkpoints()[-1]).step == stopped_at
    done = wavegen("train", "--run", run, "--resume", "--steps", str(stopped_at + 5))
    assert f"resumed at step {stopped_at}" in done.stderr
    assert n_steps(run) == stopped_at + 5


def test_evaluate_agrees_with_the_last_validation(home):
    newest = RunFolder(home / "runs/recordings").step_checkpoints()[-1]
    scored = json.loads(wavegen("evaluate", newest, "--json").stdout)
    validation = load_checkpoint(newest).metrics["validation"]
    assert scored["bits_per_sample"] == pytest.approx(validation["validation_loss"], abs=1e-4)
    assert scored["baselines"] == pytest.approx(validation["baselines"])
    assert scored["samples"] == sum(clip["samples"] for clip in scored["clips"])
    names = [clip["name"] for clip in scored["clips"]]
    files = [home / "recordings" / name for name in names]
    by_file = json.loads(wavegen("evaluate", newest, *files, "--json").stdout)
    assert by_file["bits_per_sample"] == pytest.approx(scored["bits_per_sample"], abs=1e-6)
    everything = json.loads(wavegen("evaluate", newest, home / "recordings", "--json").stdout)
    assert everything["interval_95"][0] < everything["bits_per_sample"] < everything["interval_95"][1]
    assert "this model minus it" in wavegen("evaluate", newest, home / "recordings", "--summary").stdout


def test_evaluate_and_prime_tell_what_is_wrong_with_a_clip(home, tmp_path):
    time = np.arange(8000) / 8000
    tone = 0.4 * np.sin(2 * np.pi * 200 * time)
    (tmp_path / "odd").mkdir()
    soundfile.write(tmp_path / "odd" / "silent.wav", np.zeros(8000), 8000)
    soundfile.write(tmp_path / "odd" / "cancels.wav", np.stack([tone, -tone], axis=1), 8000)
    soundfile.write(tmp_path / "odd" / "clipped.wav", np.clip(9 * tone, -1, 1), 8000)
    said = wavegen("evaluate", home / "runs/recordings", tmp_path / "odd").stderr
    for kind in ("Silent from end to end: 1 file", "Channels cancel: 1 file", "Clipped: 1 file"):
        assert kind in said
    for name, kind in (("silent", "silent from end to end"), ("cancels", "channels cancel"), ("clipped", "clipped: ")):
        prime = tmp_path / "odd" / f"{name}.wav"
        new = ("--seconds", "0.01", "-o", tmp_path / f"{name}.new.wav")
        assert kind in wavegen("generate", home / "runs/recordings", "--prime", prime, *new).stderr


def test_evaluate_writes_a_line_for_each_clip(home, tmp_path):
    manifest = load_checkpoint(RunFolder(home / "runs/recordings").best_checkpoint).manifest
    (heard, other), (held_out, *_) = (
        [clip["name"] for clip in manifest if clip["split"] == split][:2] for split in ("train", "validation")
    )
    clips = tmp_path / "clips"
    clips.mkdir()
    shutil.copy(home / "recordings" / other, clips)
    shutil.copy(home / "recordings" / held_out, clips)
    hostile = os.fsencode(clips) + b"/=1+1,\n\xff" + os.fsencode(Path(heard).suffix)
    shutil.copy(home / "recordings" / heard, hostile)
    table = tmp_path / "scores.csv"
    evaluate = ["evaluate", "runs/recordings", clips, "--csv"]
    done = wavegen(*evaluate, table, "--json", cwd=home)
    document, rows = json.loads(done.stdout), list(csv.DictReader(table.read_text().splitlines()))
    low, high = document["interval_95"]
    assert low < document["bits_per_sample"] < high
    assert "2 of 3 clips were trained on, and the figures are not of held-out audio: " in done.stderr
    assert len(table.read_text().splitlines()) == 4
    trained_on = {Path(row["name"]).stem: row["trained_on"] for row in rows}
    assert trained_on == {"=1+1,\\n\\udcff": "true", Path(other).stem: "true", Path(held_out).stem: "false"}
    for row, clip in zip(rows, document["clips"], strict=True):
        assert (int(row["n_samples"]), float(row["bits"])) == (clip["samples"], clip["bits"])
        assert float(row["bits_per_sample"]) == clip["bits_per_sample"]
        assert float(row["bits_per_sample of linear prediction"]) == clip["baselines"]["linear prediction"]
        assert row["trained_on"] == str(clip["trained_on"]).lower()
    before = table.read_bytes()
    assert f"{table}: already exists" in wavegen(*evaluate, table, cwd=home, exit_code=2).stderr
    assert wavegen(*evaluate, "-", cwd=home).stdout.encode() == before == table.read_bytes()
    wavegen(*evaluate, table, "--overwrite", cwd=home)


def test_inspect_knows_everything_that_the_tool_touches(home, tmp_path):
    run = home / "runs" / "recordings"
    assert "broken.wav" in wavegen("inspect", home / "recordings").stdout
    assert "3,070 samples" in wavegen("inspect", "paper").stdout
    for path in (home / "tiny.yaml", run, RunFolder(run).best_checkpoint):
        picture = tmp_path / f"{path.name}.png"
        assert json.loads(wavegen("inspect", path, "--json", "--plot", picture).stdout)
        assert picture.read_bytes().startswith(b"\x89PNG")
    wavegen("inspect", home / "recordings" / "clip 1.flac", "--plot", tmp_path / "clip.png")
    assert (tmp_path / "clip.png").read_bytes().startswith(b"\x89PNG")
    heard = wavegen("inspect", home / "recordings", "--listen", "--plot", tmp_path / "folder.png")
    assert " of all audio lies 60 dB below its file's loudest part" in heard.stdout
    assert (tmp_path / "folder.png").read_bytes().startswith(b"\x89PNG")


def test_cache_frees_what_was_decoded(home, tmp_path):
    folder = shutil.copytree(home / "recordings", tmp_path / "copied")
    environment = {"WAVEGEN_CACHE": str(tmp_path / "cache")}
    wavegen("train", folder, "--config", home / "tiny.yaml", "--run", tmp_path / "run", "--steps", "1", **environment)
    shown = wavegen("cache", folder, **environment).stdout
    assert f"{tmp_path / 'cache'}" in shown
    assert "this folder" in shown
    assert "freed: " in wavegen("cache", folder, "--free", **environment).stderr
    assert "this folder  0 files, 0 bytes" in wavegen("cache", folder, **environment).stdout
    assert "this folder" not in wavegen("cache", **environment).stdout


def test_inspect_compares_runs_and_report_writes_a_page(home, tmp_path):
    run = home / "runs" / "recordings"
    compared = json.loads(wavegen("inspect", run, run, "--json", "--plot", tmp_path / "two.png").stdout)
    assert len(compared["runs"]) == 2
    assert compared["differences"] == {}
    page = tmp_path / "run.html"
    arguments = ["report", run, "-o", page, "--sample-seconds", "0.1", "--temperatures", "0.5,1"]
    assert "written: " in wavegen(*arguments).stderr
    assert page.read_text(encoding="utf-8").count("<audio") == 3  # and the run's audition
    written = page.stat().st_mtime_ns
    assert "--overwrite" in wavegen(*arguments, exit_code=2).stderr
    assert page.stat().st_mtime_ns == written
    wavegen(*arguments, "--overwrite")


SIXTEEN_BIT = [
    *("--set", "quantization.kind=linear"),
    *("--set", "quantization.classes=65536"),
    *("--set", "model.input=scalar"),
]


@pytest.mark.parametrize("kind", MIXTURE_KINDS)
def test_16_bits_from_training_to_a_new_file(home, tmp_path, kind):
    run = tmp_path / "run"
    output = ["--set", f"output.kind={kind}", "--set", "output.components=3"]
    told = wavegen("train", "recordings", "--config", "tiny.yaml", "--run", run, *SIXTEEN_BIT, *output, cwd=home).stderr
    assert "65,536 linear classes (16 bit)" in told
    assert "baselines: uniform 16.000, unigram" in told
    assert "Markov" not in told
    assert load_checkpoint(RunFolder(run).best_checkpoint).average["output.weight"].shape == (9, 16)
    document = json.loads(wavegen("evaluate", run, "--json").stdout)
    assert (document["quantization"], document["classes"]) == ("linear", 65536)
    assert list(document["baselines"]) == ["uniform", "unigram", "linear prediction"]
    last = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()][-1]
    assert document["bits_per_sample"] == pytest.approx(last["validation_loss"], abs=1e-6)
    assert "65,536 linear classes (16 bit)" in " ".join(wavegen("evaluate", run, "--summary").stdout.split())
    for name in ("one.wav", "other.wav"):
        wavegen("generate", run, "-o", tmp_path / name, "--seconds", "0.2", "--temperature", "0.9", "--seed", "3")
    one, other = (soundfile.read(tmp_path / name, dtype="int16")[0] for name in ("one.wav", "other.wav"))
    assert np.array_equal(one, other)
    assert len(np.unique(one)) > 256  # 8 bits have no more
    refused = wavegen("generate", run, "-o", tmp_path / "new.wav", "--top-p", "0.9", exit_code=2).stderr
    assert "--top-p: not with this model, whose output (" in refused
    assert not (tmp_path / "new.wav").exists()


def test_config_lists_prints_and_describes(tmp_path):
    listed = wavegen("config").stdout
    assert all(name in listed for name in ("demo", "paper", "small"))
    (tmp_path / "my.yaml").write_text(wavegen("config", "small").stdout)
    first_line = (tmp_path / "my.yaml").read_text().splitlines()[0]
    assert first_line == "# yaml-language-server: $schema=wavegen.schema.json"
    assert json.loads(wavegen("inspect", "my.yaml", "--json", cwd=tmp_path).stdout)
    schema = json.loads(wavegen("config", "--schema").stdout)
    assert set(schema["properties"]) == set(load_config("small").model_dump())
    assert schema["$defs"]["ModelConfig"]["properties"]["cycles"]["maximum"] == 20
    assert "did you mean 'small'?" in wavegen("config", "smal", exit_code=2).stderr


@pytest.fixture
def short_bench(monkeypatch, tmp_path):
    """Let ``bench`` repeat little, and train in forks instead of new interpreters."""
    monkeypatch.setattr("wavegen.bench.REPEATS", 2)
    monkeypatch.setattr("wavegen.bench.ROW_SECONDS", 0.01)
    monkeypatch.setattr("wavegen.bench.PROBE_SECONDS", 0.005)

    def run(command, *, input, stdout, start_new_session, check):
        assert command[1:] == ["-P", "-m", "wavegen.bench"]
        (tmp_path / "input").write_bytes(input)
        with (
            (tmp_path / "input").open() as given,
            Process(stdin=given, program="measure_training.py") as process,
        ):
            return subprocess.CompletedProcess(command, process.wait(), process.words()[0])

    monkeypatch.setattr("wavegen.bench.subprocess", SimpleNamespace(run=run, PIPE=subprocess.PIPE))


def test_bench_prints_its_measurements(home, short_bench):
    rows = json.loads(wavegen("bench", "--config", "tiny.yaml", "--json", cwd=home).stdout)
    assert {row["work"] for row in rows} == {"generate", "train"}
    assert {row["precision"] for row in rows if row["engine"] == "numba"} == {"float32", "bfloat16", "int8"}
    for row in rows:
        assert row["samples_per_second"] == pytest.approx(row["times_real_time"] * 8000)
        assert row["batch"] >= 1
        assert row["threads"] >= 1
        assert (row["share_of_limit"] is not None) == (row["engine"] == "numba")
        assert (row["peak_memory_bytes"] is not None) == (row["work"] == "train")
        if row["work"] == "train":
            assert row["input_steps_per_second"] > row["samples_per_second"]
            assert row["peak_memory_bytes"] > 1_000_000
    trained = {row["engine"] for row in rows if row["work"] == "train"}
    assert trained == {"fused", "fused (activation checkpointing)", "torch", "textbook"}


@pytest.mark.parametrize("stopped", [KeyboardInterrupt(), Stopped(130)], ids=repr)
def test_bench_prints_what_it_has_when_it_is_stopped(home, short_bench, monkeypatch, stopped):
    def stop(*arguments):
        raise stopped

    monkeypatch.setattr("wavegen.bench.measure_training", stop)
    done = wavegen("bench", "--config", "tiny.yaml", cwd=home, exit_code=130)
    assert "Generating (medians)" in done.stdout
    assert "samples/s" in done.stderr


def test_bench_says_how_long_a_training_takes(home, short_bench):
    assert "wavegen train\n  steps  20, about " in wavegen("bench", "--config", "tiny.yaml", cwd=home).stdout


def test_the_plan_alone_trains_nothing(home, tmp_path):
    plan = ["train", home / "recordings", "--config", home / "tiny.yaml", "--run", tmp_path / "run", "--plan"]
    done = wavegen(*plan)
    assert f"  run        {tmp_path}" in done.stdout.replace("\n             ", "")
    assert "receptive field" in done.stdout
    assert not list(tmp_path.iterdir())
    assert "is not empty" not in done.stderr
    taken = wavegen(*plan, "--run", home / "runs/recordings").stderr
    assert "run folder is not empty; continue with wavegen train --run" in taken
    assert ", or choose another: --run " in taken
    assert "--plan: the plan of a new run" in wavegen(*plan, "--resume", exit_code=2).stderr


def test_trains_from_another_runs_weights(home, tmp_path):
    arguments = ["train", "recordings", "--config", "tiny.yaml", "--run", tmp_path / "tuned", "--steps", "2"]
    done = wavegen(*arguments, "--init-from", "runs/recordings", cwd=home)
    assert "initialized 21 of 21 tensors" in done.stderr


WRONG_CALLS = {
    "no folder": (["train"], 2, "expected a folder of recordings"),
    "folder is not there": (["train", "nowhere"], 2, "nowhere: expected a folder of recordings or a file, found none"),
    "nothing usable": (["train", "empty", "--run", "r"], 1, "empty: "),
    "series of numbers": (["train", "tables", "--run", "r"], 1, "--config book-simple --set series.synthetic=null"),
    "typo in a config": (
        ["train", "recordings", "--config", "typo.yaml", "--run", "r"],
        2,
        "typo.yaml:2: model.residual_chanels: unknown key; did you mean 'residual_channels'?",
    ),
    "no such preset": (["train", "recordings", "--config", "papr"], 2, "did you mean 'paper'?"),
    "wrong override": (
        ["train", "recordings", "--set", "model.cycles=ten"],
        2,
        "--set model.cycles=ten: model.cycles: expected a whole number from 1 to 20, found 'ten'",
    ),
    "existing run": (
        ["train", "recordings", "--config", "tiny.yaml"],
        2,
        "continue with wavegen train --run runs/recordings --resume",
    ),
    "a run as recordings": (["train", "runs/recordings", "--resume"], 2, "train --run runs/recordings --resume"),
    "a configuration as recordings": (["train", "tiny.yaml"], 2, "wavegen train DIR --config tiny.yaml"),
    "nothing to resume": (["train", "recordings", "--run", "r", "--resume"], 2, "nothing to resume"),
    "no such device": (["train", "recordings", "--device", "tpu"], 2, "expected auto, cpu, cuda, cuda:N or mps"),
    "unknown option": (["train", "recordings", "--step", "5"], 2, "No such option"),
    "no such run": (
        ["generate", "runs/nothing"],
        2,
        "runs/nothing: expected a run folder",
    ),
    "not a checkpoint": (["generate", "train.stderr"], 1, "train.stderr: expected a safetensors file"),
    "a recording as a model": (["generate", "tiny.wav"], 2, "tiny.wav: expected a run folder or a checkpoint, found a"),
    "recordings as a model": (["evaluate", "recordings"], 2, "no model; did you mean runs/recordings?"),
    "other recordings as a model": (["generate", "other"], 2, "no model; train one: wavegen train other"),
    "a folder of runs as a model": (["export", "runs", "-o", "a.onnx"], 2, "give one of them: runs/recordings"),
    "a run before its training": (["generate", "runs/empty"], 2, "nothing; train one first: wavegen train DIR"),
    "resuming before training": (["train", "--run", "runs/empty", "--resume"], 2, "train DIR --run runs/empty"),
    "a folder that was there": (["generate", "gone/recordings"], 2, "found nothing; did you mean runs/recordings?"),
    "a configuration as a model": (["generate", "tiny.yaml"], 2, "tiny.yaml: expected a run folder or a checkpoint"),
    "existing output": (["generate", "runs/recordings", "-o", "tiny.wav"], 2, "tiny.wav"),
    "unknown ending": (["generate", "runs/recordings", "-o", "new.m4a"], 2, ".wav"),
    "no threads": (
        ["generate", "runs/recordings", "--threads", "0"],
        2,
        "--threads: expected a whole number, 1 or more",
    ),
    "unknown precision": (
        ["generate", "runs/recordings", "--precision", "int4"],
        2,
        "--precision: expected one of auto",
    ),
    "precision of torch": (
        ["generate", "runs/recordings", "--engine", "torch", "--precision", "int8"],
        2,
        "the torch engine has float32 only",
    ),
    "no such engine": (
        ["generate", "runs/recordings", "--engine", "warp"],
        2,
        "expected one of auto, numba",
    ),
    "too long": (["generate", "runs/recordings", "--seconds", "1e12"], 2, "expected at most 10,000,000, or inf, found"),
    "no length": (["generate", "runs/recordings", "--seconds", "0"], 2, "--seconds: expected a number above 0, or inf"),
    "no clips": (["generate", "runs/recordings", "--count", "0"], 2, "--count: expected a whole number, 1 or more"),
    "cold": (["generate", "runs/recordings", "--temperature", "-1"], 2, "--temperature: expected a number, 0 or more"),
    "top-p": (["generate", "runs/recordings", "--top-p", "1.5"], 2, "--top-p: expected a number above 0 and at most 1"),
    "top-k": (["generate", "runs/recordings", "--top-k", "0"], 2, "--top-k: expected a whole number, 1 or more"),
    "several to a pipe": (
        ["generate", "runs/recordings", "--count", "2", "-o", "-"],
        2,
        "one clip",
    ),
    "no prime": (["generate", "runs/recordings", "--with-prime"], 2, "expected --prime AUDIO"),
    "prime is not there": (["generate", "runs/recordings", "--prime", "no.wav"], 2, "no.wav: expected an audio file"),
    "broken prime": (
        ["generate", "runs/recordings", "--prime", "recordings/broken.wav"],
        1,
        "libsndfile cannot",
    ),
    "nothing to score": (["evaluate", "runs/recordings", "recordings/broken.wav"], 1, "expected audio to score"),
    "nothing to inspect": (["inspect", "nowhere"], 2, "nowhere"),
    "picture of another kind": (["inspect", "small", "--plot", "small.jpg"], 2, "expected a name that ends in .png"),
    "existing picture": (["inspect", "small", "--plot", "old.png"], 2, "old.png: already exists"),
    "picture into nowhere": (["inspect", "small", "--plot", "no/a.png"], 2, "the folder no does not exist"),
    "comparison with no run": (["inspect", "runs/recordings", "small"], 2, "small: expected a run to compare"),
    "page about no run": (["report", "recordings", "-o", "a.html"], 2, "expected a run folder, found none at"),
    "cache of no folder": (["cache", "small"], 2, "small: expected a folder of recordings, found none"),
    "cache of nothing": (["cache", "--free"], 2, "--free: expected a folder of recordings"),
    "page by its old option": (["inspect", "runs/recordings", "--html", "a.html"], 2, "use: wavegen report RUN -o"),
    "cache by its old option": (["inspect", "recordings", "--drop-cache"], 2, "use: wavegen cache DIR --free"),
    "listening to a run": (["inspect", "runs/recordings", "--listen"], 2, "--listen: expected a folder"),
    "no temperature": (
        ["report", "runs/recordings", "--temperatures", "hot"],
        2,
        "--temperatures: expected numbers",
    ),
    "samples of a negative length": (
        ["report", "runs/recordings", "--sample-seconds", "-1"],
        2,
        "--sample-seconds: expected 0 to 60, found -1",
    ),
    "samples of no length": (
        ["report", "runs/recordings", "--sample-seconds", "nan"],
        2,
        "--sample-seconds: expected 0 to 60, found nan",
    ),
}


@pytest.mark.parametrize("case", WRONG_CALLS)
def test_a_wrong_call_gets_one_clear_line_and_its_exit_code(home, case):
    arguments, exit_code, expected = WRONG_CALLS[case]
    for name in ("empty", "other"):
        (home / name).mkdir(exist_ok=True)
    shutil.copy(home / "recordings" / "clip 0.wav", home / "other")
    (home / "tables").mkdir(exist_ok=True)
    (home / "tables" / "a.csv").write_text("1\n2\n")
    (home / "typo.yaml").write_text("model:\n  residual_chanels: 32\n")
    (home / "tiny.wav").write_bytes(b"precious")
    (home / "old.png").write_bytes(b"precious")
    done = wavegen(*arguments, cwd=home, exit_code=exit_code)
    assert done.stdout == ""
    *before, error = done.stderr.splitlines()
    assert error.lower().startswith("error: ")
    assert expected in error
    assert not [line for line in before if line.lower().startswith("error")]
    assert not (home / "r").exists()
    assert not (home / "generated.wav").exists()
    assert (home / "tiny.wav").read_bytes() == b"precious"


def test_debug_shows_the_traceback(home):
    assert "Traceback" in wavegen("--debug", "inspect", "nowhere", exit_code=2).stderr


def test_several_problems_are_reported_together(home):
    (home / "many.yaml").write_text("model:\n  cycles: 0\n  imput: scalar\ntrainig: {}\n")
    said = wavegen("inspect", "many.yaml", cwd=home, exit_code=2).stderr.splitlines()
    assert [line.split(": ")[1] for line in said] == ["many.yaml:2", "many.yaml:3", "many.yaml:4"]


def test_installed_from_a_wheel_it_works_outside_any_checkout(tmp_path):
    root = Path(__file__).parent.parent
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
    build = [*pip, "wheel", "--no-index", "--no-deps", "--no-build-isolation", str(root)]
    subprocess.run(build, cwd=tmp_path, check=True)
    (wheel,) = tmp_path.glob("wavegen-*.whl")
    target = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-index", "--no-deps", "--target", str(target), str(wheel)], check=True)
    done = subprocess.run(
        [sys.executable, "-c", "import wavegen.config as c; print(c.__file__, c.preset_names())"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(target) in done.stdout
    assert "'paper', 'rnn', 'small'" in done.stdout


# --- conditions -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def voices(tmp_path_factory):
    """A user's folder with two voices, and a run that has labels and one that makes sound of spectrograms."""
    home = tmp_path_factory.mktemp("voices")
    time_s = np.arange(4000) / 8000
    for name, hz in (("anna", 400), ("bert", 200)):
        (home / "recordings" / name).mkdir(parents=True)
        for i in range(6):
            soundfile.write(home / "recordings" / name / f"{i}.wav", 0.4 * np.sin(2 * np.pi * hz * time_s + i), 8000)
    (home / "tiny.yaml").write_text(TINY_YAML + "data:\n  labels: subfolders\n")
    (home / "mel.yaml").write_text(TINY_YAML + "mel:\n  n_mels: 10\n  n_fft: 256\n  hop_length: 80\n  upsampling: 8\n")
    done = wavegen("train", "recordings", "--config", "tiny.yaml", "--run", "labels", cwd=home)
    assert re.search(r"Labels, training clips\n.*\n.*\n +anna +5 +2\.5 s *\n +bert +4 +2\.0 s", done.stderr)
    assert re.search(r"audition .*\.wav, .* s \(anna, then bert\)", done.stderr)
    assert done.stderr.endswith("Generate audio with:\n  wavegen generate labels --label anna -o new.wav\n")
    done = wavegen("train", "recordings", "--config", "mel.yaml", "--run", "mel", cwd=home)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("  wavegen generate mel --mel-from ")
    wavegen(*shlex.split(last)[1:], cwd=home)
    assert soundfile.info(home / "new.wav").frames == 4000
    for path in (home / "recordings").rglob("*.wav"):
        np.save(path.with_suffix(".npy"), np.linspace(float(path.stem), 7, 51))
    (home / "recordings" / "bert" / "5.npy").unlink()
    (home / "features.yaml").write_text(TINY_YAML + "features:\n  columns: auto\n")
    done = wavegen("train", "recordings", "--config", "features.yaml", "--run", "features", cwd=home)
    text = " ".join(done.stderr.split())
    assert "1 file is left out, expected features (F, D) in a .npy file of the same name: bert/5.wav." in text
    assert "1 column, 100 frames a second of 80 samples, 4 learned steps in each" in text
    assert "the right frames save " in text
    last = done.stderr.splitlines()[-1]
    assert last.startswith("  wavegen generate features --features ")
    wavegen(*shlex.split(last)[1:], "--overwrite", cwd=home)
    assert soundfile.info(home / "new.wav").frames == 51 * 80
    return home


def test_generate_by_label(voices, tmp_path):
    new = ["generate", voices / "labels", "--seconds", "0.1", "--seed", "0", "-o"]
    done = wavegen(*new, tmp_path / "default.wav")
    assert "label: anna (the default; the model knows anna, bert)" in done.stderr
    done = wavegen(*new, "clip.wav", "--label", "anna", "--label", "anna=0.4,bert=0.6", "--count", "3", cwd=tmp_path)
    assert "labels: anna in clip-1.wav, clip-3.wav; anna=0.4,bert=0.6 in clip-2.wav\n" in done.stderr
    clips = [soundfile.read(tmp_path / f"clip-{i}.wav")[0] for i in (1, 2, 3)]
    assert np.array_equal(clips[0], soundfile.read(tmp_path / "default.wav")[0])
    done = wavegen(*new, tmp_path / "none.wav", "--label", "dora", exit_code=2)
    assert "error: --label: no such label 'dora'; this model knows anna, bert\n" in done.stderr
    assert not (tmp_path / "none.wav").exists()


def test_generate_from_spectrograms(voices, tmp_path):
    recording = voices / "recordings" / "anna" / "0.wav"
    new = ["generate", voices / "mel", "-o"]
    wavegen(*new, tmp_path / "again.wav", "--mel-from", recording)
    assert soundfile.info(tmp_path / "again.wav").frames == 4000
    np.save(tmp_path / "frames.npy", np.full((25, 10), -5.0, np.float32))
    wavegen(*new, tmp_path / "from_frames.wav", "--mel", tmp_path / "frames.npy")
    assert soundfile.info(tmp_path / "from_frames.wav").frames == 25 * 80
    for arguments, text in [
        ([], "this model makes sound of mel spectrograms; expected --mel-from AUDIO or --mel FILE.npy, found none"),
        (["--mel", "a.npy", "--mel-from", "b.wav"], "--mel and --mel-from: expected one of them, found 2"),
        (
            ["--mel", tmp_path / "gone.npy"],
            "gone.npy: expected mel frames as numpy.save writes a float array (F, 10)",
        ),
        (["--mel-from", recording, "--label", "anna"], "--label: this model has no labels; leave it out, or see "),
        (
            ["--mel-from", recording, "--seconds", "9"],
            "--seconds: expected at most 0.5 s, as the mel frames go, found 9",
        ),
    ]:
        done = wavegen(*new, tmp_path / "none.wav", *arguments, exit_code=2)
        assert text in done.stderr
    done = wavegen("generate", voices / "labels", "--mel-from", recording, "-o", tmp_path / "x.wav", exit_code=2)
    assert "--mel-from: this model is not conditioned on mel spectrograms; leave it out, see " in done.stderr


def test_generate_from_features(voices, tmp_path):
    new = ["generate", voices / "features", "-o"]
    np.save(tmp_path / "asked.npy", np.arange(25))
    wavegen(*new, tmp_path / "new.wav", "--features", tmp_path / "asked.npy", "--count", "2", "--best-of", "2")
    assert soundfile.info(tmp_path / "new-2.wav").frames == 25 * 80
    np.save(tmp_path / "wide.npy", np.zeros((25, 2)))
    asked, gone, wide = (tmp_path / f"{name}.npy" for name in ("asked", "gone", "wide"))
    recording = voices / "recordings" / "anna" / "0.wav"
    for arguments, text in [
        ([], "this model makes sound of features; expected --features FILE.npy, found none"),
        (["--mel", "a.npy", "--features", "b.npy"], "--mel and --features: expected one of them, found 2"),
        (["--mel", "a.npy"], "--mel: this model is not conditioned on mel spectrograms; leave it out, see "),
        (["--features", gone], "gone.npy: expected features as numpy.save writes a float array (F, 1), found none"),
        (["--features", wide], "expected features (F, 1), found (25, 2); this model's are 1 column, a frame every"),
        (["--features", asked, "--seconds", "9"], "--seconds: expected at most 0.25 s, as the features go, found 9"),
        (["--features", asked, "--prime", recording], "--prime: not with a model conditioned on features, which"),
    ]:
        done = wavegen(*new, tmp_path / "none.wav", *arguments, exit_code=2)
        assert text in done.stderr
    done = wavegen(
        "generate", voices / "mel", "--features", tmp_path / "asked.npy", "-o", tmp_path / "x.wav", exit_code=2
    )
    assert "--features: this model is not conditioned on features; leave it out, see " in done.stderr
    files = [voices / "recordings" / "bert" / name for name in ("0.wav", "5.wav")]
    done = wavegen("evaluate", voices / "features", *files, "--json")
    assert [Path(clip["name"]).name for clip in json.loads(done.stdout)["clips"]] == ["0.wav"]
    assert "frames_gain" in json.loads(done.stdout)
    assert f"skipped: {files[1]}: " in done.stderr
    assert f"{files[1].with_suffix('.npy')}: expected features as numpy.save writes a float array" in done.stderr


def test_evaluate_under_conditions(voices, tmp_path):
    for run in ("labels", "mel", "features"):
        scored = json.loads(wavegen("evaluate", voices / run, "--json").stdout)
        best = load_checkpoint(RunFolder(voices / run).best_checkpoint).metrics["validation"]
        assert scored["bits_per_sample"] == pytest.approx(best["validation_loss"], abs=1e-4)
    other = tmp_path / "other.wav"
    shutil.copy(voices / "recordings" / "bert" / "0.wav", other)
    done = wavegen("evaluate", voices / "labels", other, exit_code=2)
    assert f"error: {other}: expected it in a folder named as one of this model's labels, anna, bert" in done.stderr
    assert "give the label of all files instead" in done.stderr
    wavegen("evaluate", voices / "labels", other, "--label", "bert")
    mixed = json.loads(wavegen("evaluate", voices / "labels", other, "--label", "anna=0.3,bert=0.7", "--json").stdout)
    assert [clip["label"] for clip in mixed["clips"]] == ["anna=0.3,bert=0.7"]
    table = wavegen("evaluate", voices / "labels", voices / "recordings").stdout.partition("Each label\n")[2]
    assert [line.split()[:2] for line in table.splitlines()[2:4]] == [["anna", "6"], ["bert", "6"]]


def test_fine_tuning_with_other_labels_reports_what_it_keeps(voices, tmp_path):
    shutil.copytree(voices / "recordings", tmp_path / "more")
    (tmp_path / "more" / "bert").rename(tmp_path / "more" / "carl")
    config = voices / "tiny.yaml"
    done = wavegen(
        *("train", tmp_path / "more", "--config", config, "--run", tmp_path / "run", "--init-from", voices / "labels")
    )
    assert "labels: anna kept; carl new; bert left behind" in done.stderr


def test_a_name_that_the_terminal_has_no_characters_for_is_escaped(tmp_path):
    (tmp_path / "\u00e9t\u00e9.csv").write_text("1\n2\n")
    shown = run_interpreter(COMMAND, "inspect", "\u00e9t\u00e9.csv", cwd=tmp_path, PYTHONIOENCODING="ascii").stdout
    assert "\\xe9t\\xe9.csv" in shown


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_what_goes_to_a_closed_stream_goes_nowhere(closed):
    run_interpreter(["sh", "-c", f'exec "$@" {closed}', "sh", *COMMAND], "config")
