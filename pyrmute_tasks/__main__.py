"""``python -m pyrmute_tasks`` is ``pyrmute-tasks``."""

from pyrmute_tasks.cli.main import main

if __name__ == "__main__":
    main()
