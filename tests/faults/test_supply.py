"""Dependencies of wavegen: no network at run time, a locked environment, lower bounds that are tested."""

import os
import re
import runpy
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from command_line import COMMAND, run_interpreter, wavegen
from recordings import write_tones
from wavegen.audio import decoder

ROOT = Path(__file__).parents[2]
NO_NETWORK = ROOT / "tests" / "programs" / "no_network"


@pytest.fixture
def no_network(monkeypatch):
    """Sockets that refuse, in this process and in every interpreter that it starts, such as decoders."""
    decoder.shut_down_decoders()
    for name in ("connect", "connect_ex", "sendto", "bind"):
        monkeypatch.setattr(socket.socket, name, getattr(socket.socket, name))
    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        monkeypatch.setattr(socket, name, getattr(socket, name))
    runpy.run_path(str(NO_NETWORK / "sitecustomize.py"))
    monkeypatch.setenv("PYTHONPATH", f"{NO_NETWORK}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    yield
    decoder.shut_down_decoders()


def test_the_network_is_refused_here_and_in_a_new_interpreter(no_network):
    with pytest.raises(AssertionError, match="the network was used"):
        socket.create_connection(("127.0.0.1", 9))
    with socket.socket() as one, pytest.raises(AssertionError, match="the network was used"):
        one.connect(("127.0.0.1", 9))
    code = "import socket; socket.socket().connect(('127.0.0.1', 9))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "AssertionError: the network was used" in done.stderr


@pytest.mark.slow
def test_nothing_is_fetched_from_training_to_a_page(no_network, home, tmp_path):
    """The first command is an interpreter of its own: imports fetch nothing either."""
    cache = {"WAVEGEN_CACHE": str(tmp_path / "cache")}
    run, recordings = tmp_path / "run", home / "recordings"
    run_interpreter(COMMAND, "train", recordings, "--config", home / "tiny.yaml", "--run", run, **cache)
    write_tones(tmp_path / "more", [440, 550])
    for arguments in (
        ["train", tmp_path / "more", "--config", home / "tiny.yaml", "--run", tmp_path / "other"],
        ["train", "--run", run, "--resume", "--steps", "8"],
        ["generate", run, "-o", tmp_path / "new.wav", "--seconds", "0.2"],
        ["inspect", recordings, "--listen", "--plot", tmp_path / "folder.png"],
        ["report", run, "-o", tmp_path / "page.html", "--sample-seconds", "0.2"],
        ["evaluate", run, "--summary"],
    ):
        wavegen(*arguments, **cache)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href|action)\s*=\s*["']?(https?:)?//""", page), "the page fetches nothing either"


def requirements():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    found = {}
    for line in lines:
        name, bound = re.fullmatch(r"([A-Za-z0-9_.-]+)(?:\[.*\])?(.*)", line).groups()
        if name != "wavegen":
            found[name.lower()] = bound
    return found


def pins(name):
    lines = (ROOT / ".ci" / name).read_text().split()
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.+!-]+", line) for line in lines), (
        "exact versions, nothing else"
    )
    return {line.partition("==")[0].lower().replace("_", "-"): line.partition("==")[2] for line in lines}


def test_the_lock_names_a_version_of_everything():
    locked = pins("requirements.lock")
    assert set(requirements()) <= set(locked)


def test_the_lowest_versions_are_the_lower_bounds():
    lowest = pins("lowest.txt")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(lowest) == {re.split("[><=]", line)[0] for line in project["dependencies"]}
    for name, version in lowest.items():
        bound = requirements()[name].removeprefix(">=")
        assert version == bound or version == f"{bound}.0" or version.startswith(f"{bound}."), name
