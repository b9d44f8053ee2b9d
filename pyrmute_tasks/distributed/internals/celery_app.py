"""Celery's application, free of the environment; sending tasks and commands through it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from celery import Celery
from celery.loaders.app import AppLoader

from pyrmute_tasks.distributed.internals.kombu_producers import OneAttemptMailbox

__all__ = ["IsolatedCelery"]

_PRODUCER_HEARTBEAT_S: Final = 20  # only the server looks at it: a producer may pause


class _Loader(AppLoader):
    """Reads no configuration from a module that ``CELERY_CONFIG_MODULE`` names."""

    def read_configuration(self, env: str = "") -> dict[str, Any]:
        return {}


class IsolatedCelery(Celery):
    """An application configured by its arguments only.

    Celery's own lets ``CELERY_BROKER_URL``, ``CELERY_RESULT_BACKEND`` and their like in the
    environment win over what is configured, and lets a task that is sent inside another
    task inherit from it, whichever application that belongs to.

    Args:
        name: The application's name.
        broker_url: Where the broker is, as kombu writes it.
        configuration: Celery's settings.
        is_worker: Whether it sets the process up, as Celery does for Django. Done for a producer,
            that would make it the default application of a project that has its own.

    Attributes:
        read_transport: The class of transport that consumers use; None for the broker's own.
    """

    read_transport: type | None = None
    current_worker_task: Any = None  # nothing is inherited from a task that this runs in

    def __init__(
        self, name: str, broker_url: str, configuration: Mapping[str, Any], *, is_worker: bool
    ) -> None:
        # The loader by its name: Celery's support of Django looks at the text.
        loader = f"{__name__}:{_Loader.__name__}"
        fixups: list[str] | None = None if is_worker else []
        super().__init__(name, loader=loader, fixups=fixups, set_as_current=False)
        self.backend_cls: Any = "disabled://"
        self.broker_url = broker_url
        self.conf.update(configuration)

    def setting_names(self) -> set[str]:
        """Return the names of all settings that Celery has."""
        return set(self.conf.keys())

    def connection_for_read(self, url: str | None = None, **options: Any) -> Any:
        """Return a connection to the broker of the settings, if no `url` is given."""
        connection: Any = super().connection_for_read(url or self.broker_url, **options)
        if self.read_transport is not None:
            connection.transport_cls = self.read_transport
        return connection

    def connection_for_write(self, url: str | None = None, **options: Any) -> Any:
        """Return a connection to the broker of the settings, if no `url` is given."""
        options.setdefault("heartbeat", _PRODUCER_HEARTBEAT_S)
        return super().connection_for_write(url or self.broker_url, **options)

    # --- sending ----------------------------------------------------------------------------

    def send_once(
        self,
        task: str,
        args: Sequence[Any],
        *,
        task_id: str,
        label: str,
        producer: Any,
        answer_s: float,
    ) -> None:
        """Send a task without retries.

        Args:
            task: The task's name.
            args: Its arguments.
            task_id: Its id.
            label: What Flower shows in place of the arguments.
            producer: The `kombu.Producer` to publish with.
            answer_s: How long the broker may take to confirm it.
        """
        self.send_task(
            task,
            args=args,
            task_id=task_id,
            producer=producer,
            retry=False,
            confirm_timeout=answer_s,
            argsrepr=label,
            kwargsrepr="{}",
        )

    def revoke_once(self, tasks: Iterable[str], connection: Any, answer_s: float) -> None:
        """Ask all workers to skip tasks, in one message that is not retried."""
        mailbox = OneAttemptMailbox(self.conf.control_exchange, connection, answer_s)
        mailbox.send_command("revoke", {"task_id": list(tasks), "terminate": False})

    # --- consuming --------------------------------------------------------------------------

    def serves(self, queue: str) -> bool:
        """Whether this process's worker consumes a queue; not after ``cancel_consumer``."""
        queues: Any = self.amqp.queues
        return queue in queues.consume_from
