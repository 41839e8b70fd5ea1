"""Print what each of three processes is told when rank 1 fails, what they agree on, and how rank 2 differs."""

from wavegen.errors import DataError, WavegenError
from wavegen.training.meeting import joined


def work():
    if group.rank == 1:
        raise DataError("this machine has no recordings")
    return group.rank


with joined("cpu") as group:
    try:
        group.attempt(work)
    except WavegenError as error:
        print(type(error).__name__, error.exit_code, error)
    print(group.attempt(lambda: "well"), group.from_first(group.rank), group.largest(group.rank))
    print(group.first_on_each_machine(lambda: group.local_rank))
    try:
        group.check_same("recordings", "a" if group.rank < 2 else "b")
    except WavegenError as error:
        print(type(error).__name__, error)
