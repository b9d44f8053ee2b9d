"""The Celery application that producers and workers share."""

from typing import Any, Final

from pyrmute_tasks.distributed.broker_profile import (
    CONNECT_TIMEOUT_S,
    BrokerProfile,
    broker_profile,
)
from pyrmute_tasks.distributed.internals.celery_app import IsolatedCelery
from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.settings import Settings

__all__ = ["TASK_NAME", "FleetApp", "create_app"]

TASK_NAME: Final = "pyrmute_tasks.migrate_chunk"


class FleetApp(IsolatedCelery):
    """A Celery application configured by its `Settings` alone.

    Args:
        settings: Where the broker is, and what to expect of it.
        is_worker: Whether it is a worker's, which sets the process up.

    Attributes:
        profile: The properties of that kind of broker.
        outage_s: How long the broker may be out of reach.

    Raises:
        ConfigurationError: If the settings name an option of Celery's that it has not.
    """

    def __init__(self, settings: Settings, *, is_worker: bool = False) -> None:
        self.profile: BrokerProfile = broker_profile(settings)
        self.outage_s: float = settings.outage_s
        configuration = _configuration(settings, self.profile)
        url = settings.celery_broker_url
        super().__init__("pyrmute_tasks", url, configuration, is_worker=is_worker)
        unknown = sorted(set(settings.celery_config) - self.setting_names())
        if unknown:
            raise ConfigurationError(
                f"celery_config has {', '.join(unknown)}, which Celery has not; it has the names "
                "in lower case"
            )
        self.conf.update(settings.celery_config)


def create_app(settings: Settings) -> FleetApp:
    """Return an application for `settings`, with no task registered yet."""
    return FleetApp(settings)


def _configuration(settings: Settings, profile: BrokerProfile) -> dict[str, Any]:
    return {
        # RabbitMQ closes a channel whose chunk takes longer than its `consumer_timeout`, and
        # answers one about a queue whose leader is not there yet; Redis may be a replica for
        # a moment. Workers stay.
        "broker_channel_error_retry": True,
        "broker_url": settings.celery_broker_url,
        "broker_use_ssl": settings.celery_broker_tls,
        "broker_transport_options": profile.transport_options(settings),
        "broker_connection_timeout": CONNECT_TIMEOUT_S,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,  # a worker is there when its broker is
        "task_default_queue": settings.queue,
        **profile.configuration(),
        # What is lost with a worker, or kills it, is the collector's business: the broker
        # would deliver a record that kills its process for ever.
        "task_acks_late": True,
        "task_reject_on_worker_lost": False,
        # The next message is there when a chunk ends: asking the broker for it then costs
        # a slot some milliseconds a chunk. One that has to wait too long is sent again.
        "worker_prefetch_multiplier": 2,
        "task_soft_time_limit": settings.soft_time_limit_s,
        "task_time_limit": settings.time_limit_s,
        # How long a dead child's result may still arrive. Ours are in the store by then.
        "worker_lost_wait": 0.5,
        # A chunk goes on when the connection is lost, and its outcome counts. Else nothing that
        # takes longer than the time between two losses would ever end.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # Outcomes go through the store. A result backend would cost a key, a publication
        # and a subscription per task.
        "task_ignore_result": True,
        "result_backend": None,
        # Nothing but JSON is read, so nothing in a message can execute.
        "task_serializer": "json",
        "accept_content": ["json"],
        "worker_hijack_root_logger": False,
        # Flower and exporters see nothing else.
        "worker_send_task_events": True,
        "worker_soft_shutdown_timeout": 10.0,
    }
