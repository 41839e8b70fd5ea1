"""Run wavegen, whose ``--devices`` starts forks of this process instead of new interpreters.

Only the start of each rank differs: it is a child of the launcher, has a session of its own, runs the whole command
with the arguments and the environment that the launcher gives it, and ends with its exit code.
"""

import os
import signal
import sys
import traceback
from types import SimpleNamespace

from wavegen.__main__ import main
from wavegen.training import launch


class ForkedRank:
    """The part of ``subprocess.Popen`` that the launcher uses."""

    def __init__(self, command, env, start_new_session):
        self.returncode = None
        self.pid = os.fork()
        if self.pid == 0:
            run_rank(command, env, start_new_session)

    def poll(self):
        if self.returncode is None:
            self._wait(os.WNOHANG)
        return self.returncode

    def wait(self):
        while self.returncode is None:
            self._wait(0)
        return self.returncode

    def _wait(self, options):
        pid, status = os.waitpid(self.pid, options)
        if pid:
            self.returncode = os.waitstatus_to_exitcode(status)

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def run_rank(command, environment, new_session):
    """Run the command in this fork; leave without going back through the frames of the launcher."""
    exit_code = 1
    try:
        if new_session:
            os.setsid()
        for number in launch.FORWARDED:
            signal.signal(number, signal.SIG_DFL)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = ["wavegen", *command[command.index("wavegen") + 1 :]]
        main()
    except SystemExit as end:
        exit_code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)


launch.subprocess = SimpleNamespace(Popen=ForkedRank)
main()
