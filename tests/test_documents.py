"""The documents: every call and every block of Python in them is run, small, in a folder as their reader has it.

An indented block is of calls, one a line; a fenced one says its language: python, yaml, or text for drawings and for
what is printed. A call that cannot run here stands in `NOT_RUN` with the reason. Failures are: a new call that is
neither, an option that does not exist, an entry of `NOT_RUN` that no document has, and a link that leads nowhere.
"""

import contextlib
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import pytest
import soundfile
import typer
import yaml
from typer.testing import CliRunner

import wavegen
from command_line import Process, run_alone
from wavegen.cli import app
from wavegen.config.schema import OutputKind

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
GUIDES = sorted((ROOT / "wavegen" / "docs").glob("*.md"))
CONTRIBUTING = ROOT / ".github" / "CONTRIBUTING.md"
DOCUMENTS = [README, *GUIDES, CONTRIBUTING]
SPEECH = ROOT / "tests" / "data" / "speech"
RATE_HZ = 16000

NOT_RUN = {
    "python3 -m venv .venv && . .venv/bin/activate": "is for a shell",
    "pip install .": "needs the package index; `make dist` installs the wheel",
    "pip install torch torchaudio --index-url https://download.pytorch.org/whl/cpu": "needs PyTorch's index",
    "pip install '.[tensorboard]'": "needs the package index",
    **{f"make {target}": "is what runs this" for target in ("check", "test", "test-all", "help")},
    "wavegen --install-completion": "changes the shell's start-up files; tests/test_shipping.py does it elsewhere",
    "wavegen bench": "takes minutes; tests/test_cli.py has a tiny one",
    "wavegen bench --config paper": "takes minutes",
    "wavegen bench runs/my_recordings": "takes minutes",
    **dict.fromkeys(
        (
            "wavegen bench --device cuda",
            "wavegen train my_recordings/ --config gpu-small --device cuda",
            "wavegen generate runs/my_recordings --device cuda --count 512",
            "make gpu",
        ),
        "needs a CUDA device; tests/gpu has what can be tried without",
    ),
    "torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint host1:29500 --max-restarts 3 "
    "-m wavegen train /shared/my_recordings --run-folder /shared/run": (
        "needs two machines; tests/training/test_distributed.py starts torchrun on one"
    ),
    "srun --nodes 2 --ntasks-per-node 8 --gpus-per-node 8 wavegen train /shared/my_recordings --run /shared/run": (
        "needs SLURM; tests/training/test_distributed.py sets its variables"
    ),
}
OPTIONS_OF_OTHERS = {"--max-restarts"}  # in the text
OPTIONS_OF_BEFORE = {"--html", "--drop-cache"}  # in the changelog

# What is small here and large in the README.
MOMENT = ["steps=2", "batch_size=2", "window_targets=200", "validation_seconds=0.1", "audition_every=0"]
MOMENT += ["threads=1", "precision=float32"]
SMALLER = [
    (r"^wavegen train(?!.*--resume)", "wavegen train " + " ".join(f"--set training.{value}" for value in MOMENT)),
    (r"^wavegen generate", "wavegen generate --seconds 0.1"),
    (r"^wavegen report", "wavegen report --sample-seconds 0.1"),
    (r"(training.batch_size=auto)", r"\1 --set model.cycles=1 --set model.dilation_cycle=4"),  # 16,384 samples a step
    (r"--minutes \d+", "--steps 2"),
    (r"--best-of 8", "--best-of 2"),
    (r"--config book-simple\s*$", "--config book-simple --set series.points=20"),
    (r"--steps 40000", "--steps 3"),
    (r"--seconds [1-9]\d*", "--seconds 0.1"),
    (r"--clips 32", "--clips 2"),
    (r"^(wavegen evaluate \S+ --samples)(?=$| --json| --plot)", r"\1 --clips 2 --seconds 1"),
    (r"\baplay$", "head --bytes 20000"),
]
SMALLER_PYTHON = [
    ('["training.minutes=30"]', repr([f"training.{value}" for value in MOMENT])),
    ('"training.steps=600"', ", ".join(f'"training.{value}"' for value in MOMENT[:-2])),
    ("seconds=5", "seconds=0.1"),
    ("seconds=60", "seconds=0.1"),
    ("range(16000)", "range(20)"),
]
GIVEN = {  # what a block of Python takes as known, by a piece of it
    "model.forecast(series": (
        "import wavegen; series = wavegen.load('runs/waves').forecaster.held_out_series()[0].values"
    ),
    "model.mel_spectrogram": "import wavegen; model = wavegen.load('runs/vocoder')",
}


class Block(NamedTuple):
    """Some lines of a document: of shell, python, yaml or text."""

    document: Path
    line: int
    language: str
    lines: list[str]


def text_of(document):
    return document.read_text(encoding="utf-8")


def blocks():
    return [block for document in DOCUMENTS for block in blocks_in(document)]


def blocks_in(document):
    lines = text_of(document).splitlines()
    start = 0
    while start < len(lines):
        end = start + 1
        if lines[start].startswith("```"):
            end = lines.index("```", end)
            yield Block(document, start + 2, lines[start][3:], lines[start + 1 : end])
            end += 1
        elif lines[start].startswith("    "):
            while end < len(lines) and lines[end].startswith("    "):
                end += 1
            yield Block(document, start + 1, "shell", [line[4:] for line in lines[start:end]])
        start = end


def calls():
    """Every call, without its comment, on one line."""
    shell = ["\n".join(block.lines) for block in blocks() if block.language == "shell"]
    lines = re.sub(r"\s*\\\n\s*", " ", "\n".join(shell)).splitlines()
    return list(dict.fromkeys(re.sub(r"\s+#.*", "", line) for line in lines))


def blocks_of(language):
    return [block for block in blocks() if block.language == language]


def inline_code():
    text = "\n".join(map(text_of, DOCUMENTS))
    text = re.sub(r"^```.*?^```|^    .*?$", "", text, flags=re.MULTILINE | re.DOTALL)
    return [code.replace("\n", " ") for code in re.findall(r"`([^`]+)`", text)]


COMMANDS = typer.main.get_command(app).commands
OPTIONS = {
    name: {option for parameter in command.params for option in parameter.opts if option.startswith("-")}
    | {"--help", "-h", "--full"}  # of the application
    for name, command in COMMANDS.items()
}
RUN = [call for call in calls() if call not in NOT_RUN]
SLOW = ("--devices", "voice --samples", "--clips 32")  # parts of calls that take ten seconds and more


# --- what can be seen without running ---------------------------------------------------------------------------


def test_blocks_are_of_a_known_language():
    assert {block.language for block in blocks()} == {"shell", "python", "yaml", "text"}


def test_every_call_is_run_or_listed():
    assert len(RUN) > 50
    assert [call for call in RUN if not call.startswith("wavegen ")] == []
    assert [call for call in NOT_RUN if call not in calls()] == [], "listed, and not in the README"


@pytest.mark.parametrize("words", [*calls(), *inline_code()])
def test_commands_and_options_exist(words):
    """In calls that are not run too, and in the text."""
    if match := re.search(r"\bwavegen ([a-z]+)\b(.*)", words):
        command, rest = match.groups()
        given = {word.partition("=")[0] for word in shlex.split(rest) if re.match("--?[a-z]", word)}
        assert given <= OPTIONS[command]
    elif re.fullmatch("--[a-z-]+", words):
        assert words in set.union(*OPTIONS.values()) | OPTIONS_OF_OTHERS | OPTIONS_OF_BEFORE | {"--version", "--debug"}
    elif match := re.match(r"make ([a-z-]+)", words):
        assert f"\n{match[1]}:" in (ROOT / "Makefile").read_text(encoding="utf-8")


def anchors(document):
    text = re.sub(r"^```.*?^```", "", text_of(document), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_links_lead_somewhere(document):
    """To a file of the repository, and to a title in it."""
    for link in re.findall(r"\]\((?!https?:)(.*?)\)", text_of(document)):
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link


def test_every_guide_is_linked_from_the_readme():
    assert [guide.name for guide in GUIDES if f"(wavegen/docs/{guide.name})" not in text_of(README)] == []


def test_the_readme_is_read_to_its_end():
    assert len(text_of(README).splitlines()) <= 250
    assert len(text_of(README).split()) <= 1600


@pytest.mark.parametrize("kind", get_args(OutputKind))
def test_every_output_is_explained(kind):
    assert f"`{kind}`" in text_of(GUIDES[0].parent / "models.md")


def test_the_values_in_the_yaml_are_the_default_presets():
    (block,) = blocks_of("yaml")
    default = wavegen.load_config("small").model_dump()
    shown = yaml.safe_load("\n".join(block.lines))
    assert {section: {key: default[section][key] for key in keys} for section, keys in shown.items()} == shown


def test_problems_are_reported_as_it_says(tmp_path, monkeypatch):
    (shown,) = [block.lines for block in blocks_of("text") if block.lines[0].startswith("error: ")]
    monkeypatch.chdir(tmp_path)
    lines = ["audio:", "  sample_rate_hz: 16000", "model:", "  residual_chanels: 64", "", "", "", "training:"]
    Path("my.yaml").write_text("\n".join([*lines, "  batch_size: eight\n"]))
    done = CliRunner().invoke(app, ["inspect", "my.yaml"])
    assert (done.exit_code, done.stderr.splitlines()) == (2, shown)


# --- a folder as a reader has it ---------------------------------------------------------------------------------


def write_recordings(folder):
    """Three pieces of speech, a second each."""
    folder.mkdir(parents=True)
    for i, name in enumerate(("vm-review-urgent", "queue-quantity1", "privacy-prompt")):
        clip, _ = soundfile.read(SPEECH / f"{name}.flac", frames=RATE_HZ, start=4000)
        soundfile.write(folder / f"{i}.wav", clip, RATE_HZ)


def write_series(folder):
    folder.mkdir()
    waves = np.sin(np.arange(300) / np.array([[5.0], [9.0]])).T
    np.savetxt(folder / "waves.csv", waves, delimiter=",", header="a,b", comments="")
    np.save(folder / "waves.npy", waves.T)


def smaller(call):
    for large, small in SMALLER:
        call = re.sub(large, small, call)
    return call


def wavegen_call(call):
    """Run a call of wavegen in this process, with its `> FILE`."""
    words = shlex.split(smaller(call))[1:]
    target = words[words.index(">") + 1] if ">" in words else None
    done = CliRunner().invoke(app, words[: words.index(">")] if target else words)
    assert done.exit_code == 0, done.stderr or done.exception
    if target:
        Path(target).write_text(done.stdout, encoding="utf-8")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with everything that the README's calls take for granted."""
    home = tmp_path_factory.mktemp("home")
    folders = ("my_recordings", "my_kit", "my_violin", "my_voice", "folder", "my_voices/anna", "my_voices/bert")
    for name in (*folders, "more_voices/anna", "more_voices/cleo"):
        write_recordings(home / name)
    shutil.copytree(home / "my_recordings", home / "new")
    for name in ("other", "beginning", "recording", "held_out", "new"):
        shutil.copy(home / "my_recordings" / "0.wav", home / f"{name}.wav")
    write_series(home / "my_series")
    for name in ("series.csv", "other.csv", "series.npy"):
        shutil.copy(home / "my_series" / f"waves{Path(name).suffix}", home / name)
    shutil.copy(home / "my_series" / "waves.npy", home)
    np.save(home / "frames.npy", np.full((30, 80), -5.0, np.float32))
    np.save(home / "beat.npy", np.full(30, -5.0))
    shutil.copy(home / "my_recordings" / "0.wav", home / "drum_loop.wav")
    for path in (home / "my_voice").iterdir():
        np.save(path.with_suffix(".npy"), np.arange(81.0))
    with contextlib.chdir(home):
        for words in (
            "my_recordings",
            "my_kit",
            "my_voices --config speakers",
            "my_recordings --config vocoder --run runs/vocoder",
            "my_voice --set features.columns=auto --run runs/following",
        ):
            wavegen_call(f"wavegen train {words}")
        for words in ("", "my_series --set series.synthetic=null --set output.horizon=5"):
            wavegen_call(f"wavegen train --config book-simple {words}")
        for name in ("linear", "rnn", "lstm"):
            wavegen_call(f"wavegen train --config textbook/{name} --run runs/{name}")
        wavegen_call("wavegen config small > my.yaml")
        wavegen_call("wavegen export runs/my_recordings -o step.onnx")
        for name in ("my_strings", "one", "other", "half_hour", "ten_minutes"):
            shutil.copytree("runs/my_recordings", f"runs/{name}")
    return home


@contextlib.contextmanager
def runs_kept():
    """Undo afterwards what is made of runs, for the README shows alternatives."""
    shutil.copytree("runs", "runs before")
    try:
        yield
    finally:
        shutil.rmtree("runs")
        Path("runs before").rename("runs")


def run_processes(call):
    """Run a call of wavegen in a process of its own, and what it is piped into in another one."""
    words, _, into = (shlex.split(part) for part in smaller(call).partition("|"))
    if not into:
        run_alone(*words[1:])
        return
    reader, writer = os.pipe()
    with Process(*words[1:], stdout=writer) as process:
        os.close(writer)
        with os.fdopen(reader) as pipe:
            subprocess.run(into, stdin=pipe, stdout=subprocess.DEVNULL, check=True)
        assert process.wait() == 0, process.words()


def make_room(call):
    """Remove what a call would have to overwrite."""
    words = shlex.split(call)
    for option in ("-o", "--plot", "--csv"):
        if option in words:
            Path(words[words.index(option) + 1]).unlink(missing_ok=True)
    if "train" in words and "--resume" not in words:
        folder = next((word for word in words[2:3] if not word.startswith("--")), "waves")
        run = words[words.index("--run") + 1] if "--run" in words else f"runs/{folder}"
        shutil.rmtree(run, ignore_errors=True)


@pytest.mark.parametrize(
    "call", [pytest.param(call, marks=pytest.mark.slow if any(map(call.count, SLOW)) else ()) for call in RUN]
)
def test_calls_run(home, monkeypatch, call):
    monkeypatch.chdir(home)
    with runs_kept() if call.startswith("wavegen train") else contextlib.nullcontext():
        make_room(call)
        if "|" in call or "--devices" in call:  # several processes
            run_processes(call)
        else:
            wavegen_call(call)


@pytest.mark.filterwarnings("ignore:.*slated for removal in Python 3.13:DeprecationWarning")  # in librosa.load
@pytest.mark.parametrize(
    "block", [pytest.param(block, id=f"{block.document.name} {block.line}") for block in blocks_of("python")]
)
def test_python_runs(home, monkeypatch, block):
    monkeypatch.chdir(home)
    code = "\n".join(block.lines)
    given = next((given for piece, given in GIVEN.items() if piece in code), "")
    for large, small in SMALLER_PYTHON:
        code = code.replace(large, small)
    with runs_kept():
        make_room("wavegen train my_recordings")
        exec(compile(f"{given}\n{code}", str(block.document), "exec"), {})


def test_what_is_said_of_python_is_in_a_document():
    code = "\n".join(line for block in blocks_of("python") for line in block.lines)
    assert [piece for piece in [*GIVEN, *(large for large, _ in SMALLER_PYTHON)] if piece not in code] == []
