"""`pyrmute-tasks worker`: starts a worker of a fleet."""

import os

import click

from pyrmute_tasks.cli.errors import errors_printed, usage_checked
from pyrmute_tasks.cli.options import (
    BROKER_HELP,
    MANAGER_HELP,
    QUEUE_HELP,
    STORE_HELP,
    check_name,
    loglevel_option,
    overridden,
)
from pyrmute_tasks.distributed.worker.command_line import worker_arguments
from pyrmute_tasks.distributed.worker.service import create_worker_app
from pyrmute_tasks.engine.batch_arguments import usable_cpus
from pyrmute_tasks.settings import Settings

__all__ = ["worker"]


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--manager", help=MANAGER_HELP, callback=check_name)
@click.option("--broker", help=BROKER_HELP)
@click.option("--store", help=STORE_HELP)
@click.option("--queue", help=QUEUE_HELP)
@click.option(
    "--root",
    "roots",
    multiple=True,
    type=click.Path(),
    help="Folder in which it may read and write files itself, by reference; repeatable. Needs "
    "PYRMUTE_TASKS_SECRET.",
)
@click.option(
    "--concurrency", type=click.IntRange(min=1), help="Chunks to run at a time. [default: CPUs]"
)
@click.option("--name", help="Node name, unique in the fleet. [default: from pid and host]")
@loglevel_option
@click.argument("celery_options", nargs=-1, type=click.UNPROCESSED)
def worker(
    manager: str | None,
    broker: str | None,
    store: str | None,
    queue: str | None,
    roots: tuple[str, ...],
    concurrency: int | None,
    name: str | None,
    loglevel: str,
    celery_options: tuple[str, ...],
) -> None:
    """Start a worker of a fleet; other settings come from PYRMUTE_TASKS_* variables.

    Options after -- go to Celery's worker command.
    """
    with errors_printed(include_records=False), usage_checked():
        settings = overridden(
            Settings.from_env(os.environ),
            manager=manager,
            broker_url=broker,
            store_url=store,
            queue=queue,
            roots=os.pathsep.join(roots) or None,
        )
        app = create_worker_app(settings)
    node = name or f"pyrmute-{os.getpid()}@%h"
    arguments = worker_arguments(node, concurrency or usable_cpus(), loglevel)
    app.worker_main([*arguments, *celery_options])
