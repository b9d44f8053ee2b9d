"""One harness for every test with servers and workers of its own.

`private_fleet` and `rabbitmq_fleet` are what most tests want; `Fleet` has all that can be done
to one, and `RabbitMQ`, `Valkey` and `Processes` are its parts.
"""

from tests.fleets.fleet import QUEUE, Fleet, Side, private_fleet, rabbitmq_fleet
from tests.fleets.processes import HOST, Processes, free_port, kill_group
from tests.fleets.proxy import Proxy
from tests.fleets.rabbitmq import USER, RabbitMQ, find_server
from tests.fleets.valkey import Valkey
from tests.fleets.worker import Worker

__all__ = [
    "HOST",
    "QUEUE",
    "USER",
    "Fleet",
    "Processes",
    "Proxy",
    "RabbitMQ",
    "Side",
    "Valkey",
    "Worker",
    "find_server",
    "free_port",
    "kill_group",
    "private_fleet",
    "rabbitmq_fleet",
]
