"""Print the error of each of three processes when rank 1 fails, their common values, and rank 2's difference."""

from wavegen.errors import DataError, WavegenError
from wavegen.training.process_group import process_group


def work():
    if group.rank == 1:
        raise DataError("this machine has no recordings")
    return group.rank


with process_group("cpu") as group:
    try:
        group.all_or_none(work)
    except WavegenError as error:
        print(type(error).__name__, error.exit_code, error)
    print(group.all_or_none(lambda: "well"), group.broadcast(group.rank), group.all_reduce_max(group.rank, 0))
    print(group.first_on_each_machine(lambda: group.local_rank))
    try:
        group.check_same("recordings", "a" if group.rank < 2 else "b")
    except WavegenError as error:
        print(type(error).__name__, error)
