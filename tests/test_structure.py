"""The house rules: which part may use which, and that importing a part stays light."""

import ast
import graphlib
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import soundfile

from command_line import run_interpreter

PACKAGE = Path(__file__).parent.parent / "wavegen"
PROGRAMS = Path(__file__).parent / "programs"

# What each part may import, besides itself, errors and text. Nothing uses cli.
ALLOWED = {
    "errors": set(),
    "config": set(),
    "device": set(),
    "text": set(),
    "output_file": set(),
    "simd": set(),
    "audio": {"config", "output_file"},
    "data": {"output_file", "config", "device", "audio"},
    "model": {"config", "simd"},
    "sampling": {"config", "device", "simd", "audio", "data", "model"},
    "evaluation": {"config", "device", "audio", "data", "model"},
    "series": {"output_file", "config", "audio", "data", "model", "sampling", "evaluation"},
    "runs": {"output_file", "config", "audio", "model", "sampling", "evaluation"},
    "training": {"runs", "series", "config", "device", "audio", "data", "model", "sampling", "evaluation"},
    "inspect": {"runs", "series", "config", "device", "audio", "data", "model", "evaluation", "training"},
    "report": {"inspect", "output_file", "runs", "series", "api"}
    | {"config", "device", "audio", "data", "model", "evaluation", "training", "__version__"},
    "bench": {"config", "simd", "device", "model", "sampling", "training"},
    "api": {"runs", "series", "config", "device", "audio", "data", "model", "sampling", "evaluation", "training"},
    "cli": {
        "audio",
        "inspect",
        "output_file",
        "bench",
        "config",
        "device",
        "data",
        "sampling",
        "series",
        "evaluation",
        "training",
        "report",
        "runs",
        "api",
    },
    "__main__": {"cli"},
    "__init__": {"config", "api"},
}
LIGHT = ("wavegen", "wavegen.cli", "wavegen.errors")


def imported(module):
    """The names that a module imports from wavegen, wherever in it: in functions too, and for types alone."""
    for node in ast.walk(ast.parse(module.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        yield from (name for name in names if name.startswith("wavegen."))


def imports(module):
    """The parts of wavegen that a module imports."""
    return {name.split(".")[1] for name in imported(module)} - {"__version__"}


def part_of(module):
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


MODULES = sorted(path for path in PACKAGE.rglob("*.py"))


def name_of(path):
    parts = path.with_suffix("").relative_to(PACKAGE.parent).parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def import_alone(*names):
    """Import modules in this order in a new interpreter."""
    subprocess.run([sys.executable, str(PROGRAMS / "import_modules.py"), *names], check=True)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_dependencies_point_one_way(module):
    part = part_of(module)
    assert set(imports(module)) - {part, "errors", "text"} <= ALLOWED[part]


def test_no_modules_import_each_other_in_a_circle():
    """Inside a package neither; but for the version, and for what ``import wavegen`` offers."""
    names = {name_of(path) for path in MODULES} - {"wavegen"}
    graph = {}
    for path in MODULES:
        targets = {name if name in names else name.rpartition(".")[0] for name in imported(path)}
        graph[name_of(path)] = targets & names
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_every_module_can_be_imported_first():
    # PyTorch's CPU build comes without Triton
    names = [name for name in map(name_of, MODULES) if "triton" not in name or find_spec("triton")]
    for first in LIGHT:
        import_alone(first)
    import_alone(*names[::-1])


def test_the_fused_engine_generates_to_a_file_without_torch(tmp_path):
    """``auto`` on a CPU; torch alone takes half of the time to the first sound."""
    output = tmp_path / "new.wav"
    command = [sys.executable, "-W", "error", str(PROGRAMS / "run_without_torch.py")]
    run_interpreter(command, "generate", "voice", "--seconds", "0.1", "--count", "2", "--top-p", "0.9", "-o", output)
    assert soundfile.info(tmp_path / "new-1.wav").frames == 1600
