"""The health check of a worker's container: `pyrmute_tasks.health`, at its deployed name."""

from pyrmute_tasks.health import check_health, main

__all__ = ["check_health", "main"]

if __name__ == "__main__":
    main()
