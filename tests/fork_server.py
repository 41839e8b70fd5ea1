"""Run commands of wavegen in forks of a process that has imported everything: each starts in milliseconds, not seconds.

Forking is safe here: nothing has started a thread yet. An order is a line of JSON on a socket, and four descriptors
come with it: standard input, output and error of the command, and a pipe. Into the pipe go the command's process
number, as soon as it handles signals, and its exit code, when it has ended.
"""

import gc
import importlib
import json
import os
import pkgutil
import signal
import socket
import sys
import time
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy
import torch._dynamo
import torch.utils.tensorboard

import wavegen.cli
from wavegen.__main__ import main
from wavegen.report.pictures import draw_audio
from wavegen.sampling.engines.numba_fused import compile_kernel

SLOW_DISK_SECONDS = 0.1


def warm_up():
    """Import, compile and draw all that a command would import, compile and draw first."""
    torch.set_num_threads(1)
    for module in pkgutil.walk_packages(wavegen.__path__, "wavegen."):
        importlib.import_module(module.name)
    compile_kernel("float32", lambda text: None)
    with TemporaryDirectory() as folder:
        draw_audio(Path(folder) / "nothing.png", numpy.zeros(400, numpy.float32), 4000, "nothing")
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
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.argv = ["wavegen", *order["arguments"]]
    if order["slow_disk"]:  # a save would otherwise be over before a signal comes
        fsync = os.fsync
        os.fsync = lambda file: (time.sleep(SLOW_DISK_SECONDS), fsync(file))
    # A file that a signal interrupts between its opening and its name is closed by Python, with a warning that users
    # do not see.
    warnings.filterwarnings("ignore", category=ResourceWarning)
    app = wavegen.cli.app

    def report_ready(**options):
        os.write(status, f"{os.getpid()}\n".encode())
        os.close(status)
        app(**options)

    wavegen.cli.app = report_ready
    main()


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
            return
        for descriptor in descriptors:
            os.close(descriptor)


if __name__ == "__main__":
    warm_up()
    with socket.socket(fileno=int(sys.argv[1])) as orders:
        serve(orders)
