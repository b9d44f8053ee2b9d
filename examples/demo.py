"""What ``make demo`` runs: 200,000 real flights through two workers.

The shipped sample of 5,000 flights is repeated, so that there is something to watch.
"""

import sys
import tempfile
from pathlib import Path

from pyrmute_tasks.cli.main import main

EXAMPLES = Path(__file__).parent
SAMPLE = EXAMPLES / "data" / "flights-sample.jsonl"
OUTPUT = EXAMPLES.parent / "demo-output" / "flights-3.0.0.jsonl"
REPEATS = 40


def demo() -> None:
    """Write the input to a temporary file and call the command line on it."""
    OUTPUT.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pyrmute-tasks-demo-") as directory:
        source = Path(directory) / "flights-1.0.0.jsonl"
        source.write_bytes(SAMPLE.read_bytes() * REPEATS)
        sys.argv[1:] = [
            "run",
            f"--manager={EXAMPLES / 'flights.py'}:manager",
            "--model=Flight",
            "--from=1.0.0",
            "--to=3.0.0",
            "--workers=2",
            "--overwrite",
            str(source),
            str(OUTPUT),
        ]
        main()


if __name__ == "__main__":
    demo()
