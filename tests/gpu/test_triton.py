"""The triton engine: proven in the interpreter, compiled for several cards; and on a GPU where there is one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip("triton")
HERE = Path(__file__).parent
SHARED_BYTES = {80: 163 << 10, 89: 99 << 10, 90: 227 << 10, 120: 99 << 10}  # of a program, by compute capability


def run_tests(marked, at_least, **environment):
    """Run the engine's tests in a process of their own: Triton reads its environment when it is imported."""
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", "-n0", "-m", marked]
    command.append(HERE / "in_interpreter.py")
    done = subprocess.run(
        command, env={**os.environ, **environment}, cwd=HERE.parent.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= at_least


@pytest.mark.slow
def test_in_the_interpreter():
    run_tests("not slow", 12, TRITON_INTERPRET="1")


@pytest.mark.slow
def test_all_forms_in_the_interpreter():
    run_tests("slow", 15, TRITON_INTERPRET="1")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu():
    run_tests("", 30)


SIZES = {
    "small": {"LAYERS": 18, "R": 32, "G": 32, "S": 128, "H": 128, "A": 256},
    "paper": {"LAYERS": 30, "R": 64, "G": 64, "S": 256, "H": 256, "A": 256},
}
POINTERS = {
    "newest": "i32", "offsets": "i32", "rings": "i32", "slots": "i32", "dilations": "i32", "table": "fp32",
    "bias": "fp32", "bias_of": "i32", "skip_bias": "fp32", "head_bias": "fp32", "output_bias": "fp32",
    "numbers": "fp32", "seeds": "i64", "clips": "i64", "forced": "i32", "drawn": "i32", "logits_out": "fp32",
    "hidden": "fp32", "finite": "i32",
}  # fmt: skip
SCALARS = {"streams": "i32", "steps": "i32", "classes": "i32", "temperature": "fp32", "top_k": "fp32", "top_p": "fp32"}


def compiled(sizes, capability, kind, **flags):
    """Compile the kernel for a card that is not there."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from wavegen.sampling.engines.triton_engine import _tile
    from wavegen.sampling.engines.triton_kernel import generate

    given = {
        "TAPS": 2,
        "M": 16,
        "MODE": 1,
        "CONDITIONED": False,
        "GREEDY": False,
        "TOP_K": False,
        "TOP_P": False,
        "TRACE": False,
    }
    item = 4 if kind == "fp32" else 2
    tiles = {"HEAD_TILE": _tile(sizes["S"], sizes["H"], item), "OUTPUT_TILE": _tile(sizes["H"], sizes["A"], item)}
    constants = {**sizes, **tiles, **given, **flags}
    signature, attributes = {}, {}
    for i, name in enumerate(generate.arg_names):
        signature[name] = "constexpr" if name in constants else SCALARS.get(name) or f"*{POINTERS.get(name, kind)}"
        if name not in constants and (signature[name].startswith("*") or name == "streams"):
            attributes[(i,)] = [["tt.divisibility", 16]]
    places = {(generate.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(fn=generate, signature=signature, constexprs=places, attrs=attributes)
    warps = 4 if sizes["R"] <= 32 else 8
    options = {"num_warps": warps, "num_stages": 1}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


@pytest.mark.parametrize(
    ("preset", "capability", "kind", "flags"),
    [
        ("small", 80, "bf16", {}),
        pytest.param("small", 89, "bf16", {}, marks=pytest.mark.slow),
        pytest.param("small", 90, "bf16", {"TOP_K": True, "TOP_P": True}, marks=pytest.mark.slow),
        pytest.param("small", 120, "bf16", {}, marks=pytest.mark.slow),
        pytest.param("small", 90, "fp32", {}, marks=pytest.mark.slow),
        pytest.param("paper", 80, "bf16", {}, marks=pytest.mark.slow),
        pytest.param("paper", 89, "bf16", {"CONDITIONED": True}, marks=pytest.mark.slow),
        pytest.param("paper", 90, "bf16", {}, marks=pytest.mark.slow),
        pytest.param("paper", 120, "bf16", {}, marks=pytest.mark.slow),
    ],
)
def test_it_compiles_for_a_card_and_fits(preset, capability, kind, flags, tmp_path):
    kernel = compiled(SIZES[preset], capability, kind, **flags)
    assert kernel.metadata.shared <= SHARED_BYTES[capability]
    (tmp_path / "kernel.cubin").write_bytes(kernel.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    shown = subprocess.run([tool, "-res-usage", tmp_path / "kernel.cubin"], capture_output=True, text=True, check=True)
    registers, stack = map(int, re.search(r"REG:(\d+) STACK:(\d+)", shown.stdout).groups())
    print(f"{preset} sm_{capability} {kind}: {registers} registers, stack {stack}, shared {kernel.metadata.shared}")
    assert registers <= 255
    assert stack <= (1024 if kind == "fp32" else 0)  # spilled registers go there
    assert "mma" in kernel.asm["ptx"] or kind == "fp32"
