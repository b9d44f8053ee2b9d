"""A process that drives a job until it is killed, frozen, overtaken or done."""

import random
import sys
from pathlib import Path

from pyrmute_tasks.errors import LeaseLostError
from pyrmute_tasks.jobs.driver import this_process
from pyrmute_tasks.jobs.entries import Piece, Range, Settled
from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.jobs.lease import Lease
from pyrmute_tasks.jobs.output import Output, digest_of
from pyrmute_tasks.jobs.publish import publish
from pyrmute_tasks.jobs.publish_file import FilePublication

OVERTAKEN = 3


def outputs_of(range_: Range) -> bytes:
    """Return the outputs of records; the whole output consists of these, too."""
    return b"".join(b"record %d\n" % at for at in range(range_.start, range_.end))


def settle(folder: JobFolder, lease: Lease, range_: Range, number: int) -> None:
    """Settle a range, in turn by reference and through the stream."""
    data, count = outputs_of(range_), range_.end - range_.start
    if number % 2:
        put = lease.log.put(data)
    else:
        put = Piece(f"parts/{number}.{lease.epoch}", 0, len(data))
        file = folder.storage.create(put.name)
        file.append(data)
        file.sync()
        file.close()
        folder.storage.sync_folder("parts")
    lease.log.settle(Settled(*range_, count, count, 0, put, digest_of(data)))


def drive(path: Path, target: Path, seed: int) -> None:
    """Drive the job, and print each range once it is durable."""
    rng = random.Random(seed)
    folder = JobFolder(path)
    lease = folder.take(this_process(), "code")
    print("took", lease.epoch, flush=True)
    number = 0
    while gap := next(lease.fold.gaps(folder.spec.wanted), None):
        number += 1
        start = rng.randrange(gap.start, min(gap.end, gap.start + 20))
        settle(folder, lease, Range(0, start, min(gap.end, start + rng.randint(1, 9))), number)
        if number % 3 == 0:
            for entry in lease.log.commit():
                print("settled", *entry.range, flush=True)
    publish(Output(folder), lease, FilePublication(folder, target))


if __name__ == "__main__":
    try:
        drive(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
    except LeaseLostError:
        sys.exit(OVERTAKEN)
