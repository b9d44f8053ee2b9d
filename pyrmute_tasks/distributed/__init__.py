"""Chunks on a fleet of hosts: the only code that knows Celery, kombu and Redis."""

from pyrmute_tasks.distributed.app import create_app
from pyrmute_tasks.distributed.embedded import EmbeddedFleet
from pyrmute_tasks.distributed.producer.broker import Broker
from pyrmute_tasks.distributed.producer.executor import CeleryExecutor
from pyrmute_tasks.distributed.store import Store
from pyrmute_tasks.distributed.worker.service import create_worker_app, worker_arguments

__all__ = [
    "Broker",
    "CeleryExecutor",
    "EmbeddedFleet",
    "Store",
    "create_app",
    "create_worker_app",
    "worker_arguments",
]
