"""Run a command that sends itself a signal where Python loses the exception of its handler.

Arguments: which of the functions below is the command, and the number of the signal.
"""

import os
import sys
import threading
import time

import wavegen.cli
from wavegen.__main__ import main


def send_signal():
    os.kill(os.getpid(), int(sys.argv[2]))
    time.sleep(0.1)


class Finalized:
    def __del__(self):
        send_signal()


def in_a_finalizer():
    Finalized()


def behind_another_error():
    condition = threading.Condition()
    with condition:
        condition.release()  # as a signal leaves it that comes while it is acquired again
        send_signal()


def app(**options):
    {function.__name__: function for function in (in_a_finalizer, behind_another_error)}[sys.argv[1]]()
    time.sleep(60)


wavegen.cli.app = app
main()
