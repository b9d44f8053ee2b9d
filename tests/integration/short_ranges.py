"""The command line with short ranges, so that small files have several."""

from pyrmute_tasks.cli.start import main
from pyrmute_tasks.engine import chunk_sizes

RANGE_BYTES = 2000

if __name__ == "__main__":
    for name in ("_FIRST_RANGE_BYTES", "_LEAST_RANGE_BYTES", "_MOST_RANGE_BYTES"):
        vars(chunk_sizes)[name] = RANGE_BYTES
    chunk_sizes.RangeSizer._least_share = RANGE_BYTES
    main()
