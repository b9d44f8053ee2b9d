"""The command line, which joins outputs 1,000 bytes in a quarter of a second, and tells that.

python -m tests.integration.slow_joins MARKER coordinator ...
"""

import os
import sys
import time
from pathlib import Path

from pyrmute_tasks.cli.start import main
from pyrmute_tasks.jobs import copying

BLOCK_BYTES = 1000
BLOCK_S = 0.25

if __name__ == "__main__":
    marker = Path(sys.argv.pop(1))

    def copy_slowly(target: int, source: int, offset: int, count: int) -> int:
        marker.touch()
        time.sleep(BLOCK_S)
        return os.write(target, os.pread(source, count, offset))

    vars(copying)["_COPY_BYTES"] = BLOCK_BYTES
    vars(copying)["_ways"] = lambda: [copy_slowly]
    main()
