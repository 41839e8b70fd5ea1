"""What a training says before it starts."""

import io

import torch

from recordings import write_tones
from wavegen.config import load_config
from wavegen.data.reading import read_corpus
from wavegen.model.building import build_model
from wavegen.report.plan import plan_tables
from wavegen.report.tables import print_tables
from wavegen.training.settling import settle


def test_no_name_of_a_file_or_a_folder_commands_the_terminal(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "500")  # no name is broken into lines
    folder = write_tones(tmp_path / "loud\x1b[31m", [200])
    (folder / "bad\x1b[2J.wav").write_bytes(b"no audio")
    config = load_config("small", ["training.precision=float32"]).with_values("data", folder=str(folder))
    file, cpu = io.StringIO(), torch.device("cpu")
    print_tables(
        plan_tables(settle(config, cpu), read_corpus(config), build_model(config), cpu, tmp_path / "run\x1b[1m"), file
    )
    assert "\x1b" not in file.getvalue()
    assert all(name in file.getvalue() for name in (r"loud\x1b[31m", r"bad\x1b[2J.wav"))
