"""Run commands of wavegen in forks of a process that has imported everything: each starts in milliseconds, not seconds.

Forking is safe here: nothing has started a thread yet. An order is a line of JSON on a socket, and four descriptors
come with it: standard input, output and error of the command, and a pipe. Into the pipe go the command's process
number, as soon as it handles signals, and its exit code, when it has ended. An order may name a Python program to run
instead of wavegen; its process number comes before its first line.
"""

import atexit
import ctypes
import gc
import importlib
import io
import json
import os
import pkgutil
import resource
import runpy
import signal
import socket
import sys
import threading
import time
import traceback
import warnings
from pathlib import Path

import numpy
import torch._dynamo
import torch.utils.tensorboard

import wavegen.cli
from wavegen.__main__ import main
from wavegen.report.plots import encode, sound_figure
from wavegen.sampling.engines.numba_fused import compile_kernel

PR_CAPBSET_DROP = 24
CAPABILITIES_VERSION_3 = 0x20080522
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2


def slow_disk(seconds=0.1):
    """Let each fsync take a while; a save would otherwise be over before a signal comes."""
    fsync = os.fsync
    os.fsync = lambda file: (time.sleep(seconds), fsync(file))


def limit_file_size(n_bytes):
    """Let no file grow longer than that, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))


def respect_file_modes():
    """Take from root the capabilities to read and write in spite of a file's mode; others do not have them."""
    if os.geteuid() != 0:
        return
    system = ctypes.CDLL(None)
    header = (ctypes.c_uint32 * 2)(CAPABILITIES_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable: the lower 32 bits of each, then the upper
    assert system.capget(header, sets) == 0
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        assert system.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0  # what it starts does not get them back
        for i in range(3):
            sets[i] &= ~(1 << capability)
    assert system.capset(header, sets) == 0


def enter_namespaces(process):
    """See the mounts of another process, as ``nsenter --user --mount --preserve-credentials`` does."""
    for kind in ("user", "mnt"):
        with Path(f"/proc/{process}/ns/{kind}").open() as namespace:
            assert ctypes.CDLL(None).setns(namespace.fileno(), 0) == 0, kind


CONDITIONS = {
    condition.__name__: condition for condition in (slow_disk, limit_file_size, respect_file_modes, enter_namespaces)
}


def warm_up():
    """Import, compile and draw all that a command would import, compile and draw first."""
    torch.set_num_threads(1)
    for module in pkgutil.walk_packages(wavegen.__path__, "wavegen."):
        importlib.import_module(module.name)
    compile_kernel("float32", lambda text: None)
    encode(sound_figure(numpy.zeros(400, numpy.float32), 4000, "nothing"))
    gc.freeze()  # the collector of a fork shall not visit all of this


def report_exit(status):
    """Fork once more: the child returns and becomes the command, the parent reports how it ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if child := os.fork():
        exit_code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.write(status, f"{exit_code}\n".encode())
        os._exit(0)


def become_command(order, descriptors):
    """Take over the descriptors, folder and environment of an order, and run the command until it ends."""
    *streams, status = descriptors
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = os.fdopen(0, closefd=False)
    unbuffered = bool(order["environment"].get("PYTHONUNBUFFERED"))
    raw = os.fdopen(1, "wb", buffering=0 if unbuffered else -1, closefd=False)
    sys.stdout = io.TextIOWrapper(raw, write_through=unbuffered)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    for name, arguments in order["conditions"].items():
        CONDITIONS[name](*arguments)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.argv = ["wavegen", *order["arguments"]]
    # A file that a signal interrupts between its opening and its name is closed by Python, with a warning that users
    # do not see.
    warnings.filterwarnings("ignore", category=ResourceWarning)
    app = wavegen.cli.app

    def report_pid():
        os.write(status, f"{os.getpid()}\n".encode())
        os.close(status)

    if order.get("program"):
        report_pid()
        leave(exit_code_of(lambda: runpy.run_path(order["program"], run_name="__main__")))

    def report_ready(**options):
        report_pid()
        app(**options)

    wavegen.cli.app = report_ready
    leave(exit_code_of(main))


def exit_code_of(function):
    """Call it, and return the exit code with which an interpreter would end."""
    try:
        function()
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            return stop.code or 0
        print(stop.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def leave(exit_code):
    """End as an interpreter does, without taking all modules apart: that would take longer than most commands."""
    threading._shutdown()
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except OSError:
        exit_code = 120
    sys.stderr.flush()
    os._exit(exit_code)


def serve(orders):
    """Fork for each order until the socket is closed."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the reporters end unnoticed
    while True:
        line, descriptors, _, _ = socket.recv_fds(orders, 1 << 20, 4)
        if not line:
            return
        if os.fork() == 0:
            report_exit(descriptors[-1])
            become_command(json.loads(line), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


if __name__ == "__main__":
    warm_up()
    with socket.socket(fileno=int(sys.argv[1])) as orders:
        serve(orders)
