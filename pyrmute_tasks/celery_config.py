"""Which of Celery's settings a project may choose for our application, and why not the others."""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from pyrmute_tasks.errors import ConfigurationError

__all__ = ["OURS", "check_celery_config"]

OURS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "broker_url and store_url say where servers are, with their TLS options": (
            "broker_failover_strategy",
            "broker_host",
            "broker_login_method",
            "broker_password",
            "broker_port",
            "broker_read_url",
            "broker_transport",
            "broker_url",
            "broker_use_ssl",
            "broker_user",
            "broker_vhost",
            "broker_write_url",
        ),
        "how long a server may be away is outage_s, and connections are made to keep that": (
            "broker_channel_error_retry",
            "broker_connection_max_retries",
            "broker_connection_retry",
            "broker_connection_retry_on_startup",
            "broker_connection_timeout",
            "broker_heartbeat",
            "broker_heartbeat_checkrate",
            "broker_transport_options",
            "task_publish_retry",
            "task_publish_retry_policy",
        ),
        "all chunks go through the queue that `queue` names, which producers watch": (
            "task_create_missing_queue_exchange_type",
            "task_create_missing_queue_type",
            "task_create_missing_queues",
            "task_default_delivery_mode",
            "task_default_exchange",
            "task_default_exchange_type",
            "task_default_priority",
            "task_default_queue",
            "task_default_queue_type",
            "task_default_routing_key",
            "task_inherit_parent_priority",
            "task_queue_max_priority",
            "task_queues",
            "task_routes",
            "worker_direct",
        ),
        "a job's producer resends the chunks that are lost, and counts on how workers take them": (
            "task_acks_late",
            "task_acks_on_failure_or_timeout",
            "task_always_eager",
            "task_annotations",
            "task_default_rate_limit",
            "task_eager_propagates",
            "task_reject_on_worker_lost",
            "worker_cancel_long_running_tasks_on_connection_loss",
            "worker_consumer",
            "worker_deduplicate_successful_tasks",
            "worker_detect_quorum_queues",
            "worker_disable_prefetch",
            "worker_enable_prefetch_count_reduction",
            "worker_eta_task_limit",
            "worker_lost_wait",
            "worker_pool",
            "worker_prefetch_multiplier",
        ),
        "soft_time_limit_s and time_limit_s are the limits of a chunk": (
            "task_soft_time_limit",
            "task_time_limit",
        ),
        "outcomes go through the store, not through a result backend": (
            "result_backend",
            "task_ignore_result",
            "task_store_eager_result",
            "task_store_errors_even_if_ignored",
            "task_track_started",
        ),
        "nothing but plain JSON is read, so that nothing in a message can execute": (
            "accept_content",
            "event_serializer",
            "security_certificate",
            "security_cert_store",
            "security_digest",
            "security_key",
            "security_key_password",
            "task_compression",
            "task_protocol",
            "task_serializer",
        ),
    }
)
"""Settings that are not to be chosen, by the reason."""

_REASON_OF: Final[Mapping[str, str]] = {name: why for why, names in OURS.items() for name in names}


def check_celery_config(config: Mapping[str, object]) -> None:
    """Refuse settings that would break what the library promises.

    Raises:
        ConfigurationError: For such a setting, with the reason; or if a value is not plain JSON,
            as which settings are handed to workers.
    """
    for name in config:
        if not isinstance(name, str):
            raise ConfigurationError(
                f"celery_config must have names as keys, as text, not {type(name).__name__}"
            )
        if name in _REASON_OF:
            raise ConfigurationError(f"celery_config must not set {name}: {_REASON_OF[name]}")
    if config:
        try:
            json.dumps(dict(config))
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"celery_config must be plain JSON: {error}") from None
