"""A coordinator whose turns are as short as its ranges, so that many jobs take them in seconds.

python -m tests.integration.short_turns ROOT MOST_RUNNING SLICE_S
"""

import signal
import sys
import threading

from pyrmute_tasks.engine import chunk_sizes
from pyrmute_tasks.jobs.root import JobsRoot
from pyrmute_tasks.service.coordinator import Coordinator, CoordinatorOptions
from pyrmute_tasks.settings import Settings
from tests.integration.short_ranges import RANGE_BYTES

if __name__ == "__main__":
    for name in ("_FIRST_RANGE_BYTES", "_LEAST_RANGE_BYTES", "_MOST_RANGE_BYTES"):
        vars(chunk_sizes)[name] = RANGE_BYTES
    chunk_sizes.RangeSizer._least_share = RANGE_BYTES
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    root, most_running, slice_s = sys.argv[1:]
    options = CoordinatorOptions(most_running=int(most_running), slice_s=float(slice_s))
    Coordinator(JobsRoot(root), Settings.from_env(), options).run(stop)
