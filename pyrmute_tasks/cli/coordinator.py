"""`pyrmute-tasks coordinator`: drives submitted jobs."""

import logging
import os
import signal
import sys
import threading

import click

from pyrmute_tasks.cli.errors import errors_printed, usage_checked
from pyrmute_tasks.cli.options import (
    BROKER_HELP,
    QUEUE_HELP,
    STORE_HELP,
    jobs_option,
    loglevel_option,
    overridden,
)
from pyrmute_tasks.jobs.root import root_of
from pyrmute_tasks.logs import log
from pyrmute_tasks.service.coordinator import Coordinator, CoordinatorOptions
from pyrmute_tasks.settings import Settings
from pyrmute_tasks.urls import hide_password

__all__ = ["coordinator_command"]

_FORMAT = "%(asctime)s %(levelname)s %(message)s"


@click.command("coordinator")
@jobs_option
@click.option("--broker", help=BROKER_HELP)
@click.option("--store", help=STORE_HELP)
@click.option("--queue", help=QUEUE_HELP)
@click.option(
    "--most-running",
    type=click.IntRange(min=1),
    default=CoordinatorOptions().most_running,
    show_default=True,
    help="Jobs to drive at a time; others wait for their turn.",
)
@click.option(
    "--allow-on-end",
    is_flag=True,
    help="Run the commands that jobs have for their end (--on-end), as this user.",
)
@click.option("--until-idle", is_flag=True, help="End when nothing is due and nothing runs.")
@loglevel_option
def coordinator_command(
    jobs_root: str | None,
    broker: str | None,
    store: str | None,
    queue: str | None,
    most_running: int,
    allow_on_end: bool,
    until_idle: bool,
    loglevel: str,
) -> None:
    """Drive the submitted jobs of a jobs root; other settings come from PYRMUTE_TASKS_* variables.

    Any number of coordinators may watch one root. None of them imports a manager. SIGTERM and
    Ctrl-C let go of all jobs, which others then drive.

    Exit status: 0 when it was told to end, 2 for wrong usage.
    """
    with errors_printed(include_records=False):
        with usage_checked():
            settings = overridden(
                Settings.from_env(os.environ),
                broker_url=broker,
                store_url=store,
                queue=queue,
                jobs_root=jobs_root,
            )
            root = root_of(settings.jobs_root)
        logging.basicConfig(level=loglevel, format=_FORMAT, stream=sys.stderr)
        log(
            logging.INFO,
            "coordinator_began",
            "watch a jobs root",
            root=str(root.path),
            queue=settings.queue,
            broker=hide_password(settings.broker_url),
        )
        options = CoordinatorOptions(
            most_running=most_running, allow_on_end=allow_on_end, until_idle=until_idle
        )
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        Coordinator(root, settings, options).run(stop)
    sys.stderr.flush()
    os._exit(0)  # a thread may hang at a storage that is away
