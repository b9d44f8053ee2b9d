"""amqp: RabbitMQ's replies in its errors. Imports nothing of amqp, like `kombu_transport`."""

__all__ = ["is_queue_of_another_kind", "reply_code", "reply_text"]


def reply_code(error: BaseException) -> int:
    """Return AMQP's reply code of an error; 0 if it has none."""
    return int(getattr(error, "reply_code", 0) or 0)


def reply_text(error: BaseException) -> str | None:
    """Return RabbitMQ's reply text of an error; None for errors that are not AMQP's."""
    text: str | None = getattr(error, "reply_text", None)
    return text


def is_queue_of_another_kind(error: BaseException) -> bool:
    """Return whether RabbitMQ refused to declare a queue because its arguments differ."""
    return "inequivalent arg" in str(error)
