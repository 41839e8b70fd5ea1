"""Devices, threads and memory of this process."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from wavegen.errors import ParameterError
from wavegen.text import pluralize

if TYPE_CHECKING:
    import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
LARGEST_INT = (1 << 31) - 1


def choose_device(name: str) -> torch.device:
    """Return the device of a name; ``auto`` takes CUDA where there is one.

    Args:
        name: auto, cpu, cuda, cuda:N or mps.

    Raises:
        ParameterError: no such device here.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not index.isdecimal()) or (kind != "cuda" and ":" in name):
        raise ParameterError("device", f"expected auto, cpu, cuda, cuda:N or mps, found '{name}'")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ParameterError("device", "this machine has no MPS device that torch can use", name, {"device": "cpu"})
    if kind == "cuda":
        n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(index or 0) >= n_devices:
            found = f"this machine has {n_devices} CUDA devices that torch can use"
            raise ParameterError("device", found, name, {"device": "cpu"})
    return torch.device(name)


def on_device(device: torch.device) -> AbstractContextManager[object]:
    """Make a CUDA device the current one: streams, graphs and kernels go to that, wherever their tensors lie."""
    import torch

    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def upload(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor to a device without waiting for what the device is computing."""
    # a copy from memory that can be swapped out waits until the device is idle
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def read_later(tensor: torch.Tensor) -> Callable[[], list[float]]:
    """Begin to copy a tensor to the CPU; return a function that waits for its numbers."""
    import torch

    if tensor.device.type != "cuda":
        return tensor.tolist
    host = torch.empty_like(tensor, device="cpu", pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record()

    def read() -> list[float]:
        copied.synchronize()
        numbers: list[float] = host.tolist()
        return numbers

    return read


@contextmanager
def torch_threads(n: int) -> Iterator[None]:
    """Run torch on n threads in this thread alone; others have their own number (see ``one_thread_each``)."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class ThreadPool(ThreadPoolExecutor):
    """Threads whose waiting work is dropped at the end of a ``with`` block, so that Ctrl-C need not wait for it."""

    def __exit__(self, *_: object) -> None:
        self.shutdown(cancel_futures=True)


def one_thread_each(n: int, name: str) -> ThreadPool:
    """Return a pool of n threads, each of which runs torch on one core; by default each would take all cores."""
    import torch

    return ThreadPool(n, name, initializer=torch.set_num_threads, initargs=(1,))


def keep_freed_memory() -> None:
    """Ask the C library to keep memory that is freed, for the next step of a training to take again.

    By default glibc hands large blocks back to the system, which then has to clear every page anew: measured, 10,000
    page faults and 5 to 10% of a training step's time. Without glibc nothing happens.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(M_TRIM_THRESHOLD, LARGEST_INT)
            if not mallopt(M_MMAP_THRESHOLD, LARGEST_INT):  # older versions have a limit
                mallopt(M_MMAP_THRESHOLD, 32 << 20)


def describe_device(device: torch.device, threads: int | None = None) -> str:
    """Return a device in words."""
    import torch

    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{device}: {properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    return f"cpu, {pluralize(threads, 'thread')}" if threads and device.type == "cpu" else device.type


def processor_name() -> str:
    """Return the name of this machine's processor."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error means that a device, or the system, has no memory left."""
    # a limit of addresses: of the dynamic linker, and of Python
    if isinstance(error, MemoryError) or str(error).endswith(("map segment from shared object", "start new thread")):
        return True
    if "torch" not in sys.modules:
        return False
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
