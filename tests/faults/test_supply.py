"""What wavegen rests on: no network at run time, a locked environment, lower bounds that are tested."""

import re
import tomllib
from pathlib import Path

import pytest

from command_line import wavegen

ROOT = Path(__file__).parents[2]
NO_NETWORK = """
import socket

def refuse(*arguments, **options):
    raise AssertionError("the network was used")

for name in ("connect", "connect_ex", "sendto", "bind"):
    setattr(socket.socket, name, refuse)
for name in ("getaddrinfo", "gethostbyname", "create_connection"):
    setattr(socket, name, refuse)
"""


@pytest.mark.slow
def test_nothing_is_fetched_from_training_to_a_page(home, tmp_path):
    """Every process of it runs with sockets that refuse."""
    (tmp_path / "sitecustomize.py").write_text(NO_NETWORK)
    environment = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "WAVEGEN_CACHE": str(tmp_path / "cache")}
    run, recordings = tmp_path / "run", home / "recordings"
    for arguments in (
        ["train", recordings, "--config", home / "tiny.yaml", "--run", run],
        ["train", "--run", run, "--resume", "--steps", "8"],
        ["generate", run, "-o", tmp_path / "new.wav", "--seconds", "0.2"],
        ["inspect", recordings, "--listen", "--plot", tmp_path / "folder.png"],
        ["inspect", run, "--html", tmp_path / "page.html", "--sample-seconds", "0.2"],
        ["evaluate", run, "--summary"],
    ):
        wavegen(*arguments, **environment)
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
