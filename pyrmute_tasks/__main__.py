"""Entry point of ``python -m pyrmute_tasks``."""

from pyrmute_tasks.cli.start import main

if __name__ == "__main__":
    main()
