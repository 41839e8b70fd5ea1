"""Check a checkout on a GPU in under nine minutes: `make gpu`.

Each part is a process with a limit of its own, and none stops the others. Logs and the model that was trained go to
$OUT, or gpu-report/. At the end stands a table for wavegen/docs/speed.md.
"""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

OUT = Path(os.environ.get("OUT", "gpu-report"))
DATA = Path("tests/data/speech")
LIMIT_SECONDS = 520
WAVEGEN = [sys.executable, "-m", "wavegen"]
# Bytes that a step moves and floating point operations, of a target: counted on the operations of plain PyTorch
ROOFLINE = {"small": (17e3, 1.47e6), "paper": (46e3, 7.86e6)}
LIMITS = """
import json, time, torch
def rate(work, amount, n=20):
    for _ in range(3): work()
    torch.cuda.synchronize(); began = time.perf_counter()
    for _ in range(n): work()
    torch.cuda.synchronize(); return n * amount / (time.perf_counter() - began)
a = torch.randn(8192, 8192, device="cuda", dtype=torch.float16)
large, small = torch.empty(1 << 28, device="cuda"), torch.ones(1 << 21, device="cuda")
found = {"card": torch.cuda.get_device_name(), "flops": rate(lambda: a @ a, 2 * 8192**3)}
found["bytes"] = rate(lambda: large.mul_(1.0), 8 << 28)  # read and written
found["cached_bytes"] = rate(lambda: small.sum(), 4 << 21, 200)
print(json.dumps(found))
"""

began = time.monotonic()


def part(name, limit, *command, **environment):
    """Run a command; return its output, which may end early; empty if there was no time left."""
    left = LIMIT_SECONDS - (time.monotonic() - began)
    limit, started = min(limit, left), time.monotonic()
    if limit < 10:
        print(f"=== {name}: left out, no time", flush=True)
        return ""
    with (OUT / f"{name}.log").open("w") as log:
        try:
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=log, text=True, timeout=limit, check=False,
                env={**os.environ, "PYTHONUNBUFFERED": "1", "MPLBACKEND": "Agg", **environment},
            )  # fmt: skip
            output, code = done.stdout, done.returncode
        except OSError as error:
            output, code = "", f"not run ({error})"
        except subprocess.TimeoutExpired as error:
            output, code = (error.stdout or b"").decode(), "stopped at its limit"
        log.write(output)
    print(f"=== {name}: {code}, {time.monotonic() - started:.0f} s", flush=True)
    print("\n".join((OUT / f"{name}.log").read_text().splitlines()[-6:]), flush=True)
    return output


OUT.mkdir(parents=True, exist_ok=True)
part("card", 20, "nvidia-smi")
limits = json.loads(part("limits", 60, sys.executable, "-c", LIMITS).strip() or "{}")
tests = part("tests", 150, sys.executable, "-m", "pytest", "-m", "gpu", "-n0", "-p", "no:cacheprovider", "tests")
run = OUT / "gpu-small"
part(
    "training", 170, *WAVEGEN, "train", DATA, "--config", "gpu-small", "--minutes", "2", "--device", "cuda",
    "--run", run, "--set", "training.audition_every=0",
)  # fmt: skip
score = part("score", 60, *WAVEGEN, "evaluate", run, "--summary", "--samples")
started = time.monotonic()
part("first-sound", 40, *WAVEGEN, "generate", run, "--seconds", "1", "-o", OUT / "first.wav", "--overwrite")
first_sound = time.monotonic() - started
rows = []
for preset, seconds in (("small", 70), ("paper", 80)):
    measured = part(f"speeds-{preset}", seconds + 60, sys.executable, "tests/gpu/speeds.py", preset, str(seconds))
    rows += [json.loads(line) for line in measured.splitlines() if line.startswith("[")]

print("\n| preset | what | how | precision | targets a step, or streams | per second | of the roofline |")
print("| --- | --- | --- | --- | --- | --- | --- |")
for preset, what, how, precision, size, rate in rows:
    share = ""
    if what == "train" and limits:
        n_bytes, n_flops = ROOFLINE[preset]
        share = f"{100 * rate * max(n_bytes / limits['bytes'], n_flops / limits['flops']):.0f}%"
    print(f"| {preset} | {what} | {how} | {precision} | {size:,} | {rate:,.0f} | {share} |")
print(f"\ncard: {limits.get('card', 'unknown')}")
if limits:
    print(f"products {limits['flops'] / 1e12:.0f} TFLOP/s, memory {limits['bytes'] / 1e9:,.0f} GB/s, ", end="")
    print(f"cache {limits['cached_bytes'] / 1e9:,.0f} GB/s")
print(f"first sound after {first_sound:.1f} s")
print("tests:", (re.findall(r"\d+ passed.*", tests) or ["failed"])[-1])
print(score)
print(f"{time.monotonic() - began:.0f} s")
