"""``python -m pyrmute_tasks`` is ``pyrmute-tasks``."""

from pyrmute_tasks.cli import main

if __name__ == "__main__":
    main()
