"""amqp: what RabbitMQ said of an error. It imports nothing of amqp, as `kombu_transport`."""

__all__ = ["is_queue_of_another_kind", "reply_code", "reply_text"]


def reply_code(error: BaseException) -> int:
    """Return the number that AMQP gives an error; 0 if it has none."""
    return int(getattr(error, "reply_code", 0) or 0)


def reply_text(error: BaseException) -> str | None:
    """Return what RabbitMQ said; None if the error is not AMQP's."""
    text: str | None = getattr(error, "reply_text", None)
    return text


def is_queue_of_another_kind(error: BaseException) -> bool:
    """Whether RabbitMQ refused to declare a queue that it has with other arguments."""
    return "inequivalent arg" in str(error)
