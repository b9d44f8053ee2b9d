"""Kombu's Redis transport, which acknowledges messages without waiting for the server.

For each message kombu notes that it is unacknowledged, and later removes the note. It waits for
both answers in the worker's event loop, where meanwhile no child is given its next chunk: with a
server that is 300 ms away and back, two thirds of a second a chunk, whatever the prefetch.

Here the commands are sent in the same order, at the same time and over one connection, and the
answers are read when there is something else to send. So the server knows what it knew before,
as early as it did. What was sent over a connection that fails is sent again and waited for.

A worker that leaves also puts back at once what it has asked for and no longer wants.
"""

import contextlib
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty
from typing import Any, Final

import redis
from kombu.transport.redis import Channel, QoS, Transport
from redis.client import Pipeline

__all__ = ["PromptChannel", "PromptTransport"]

_MOST_UNANSWERED: Final = 64  # then the oldest is waited for: a dead connection is noticed
_base_transport: Any = Transport  # its stubs lack most of it
_base_channel: Any = Channel
_base_qos: Any = QoS


class _Notes:
    """Transactions sent over one connection whose answers have not been read.

    Args:
        client: Provides the connections, and resends lost transactions.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._connection: Any = None
        self._unanswered: deque[list[Any]] = deque()

    def send(self, commands: list[Any]) -> None:
        """Send a transaction, after reading the answers that have arrived."""
        self._unanswered.append(commands)
        try:
            while len(self._unanswered) > 1 and self._is_answered():
                self._read_answer()
            if len(self._unanswered) == 1:
                self._release()
            if self._connection is None:
                self._connection = self._client.connection_pool.get_connection()
            arguments = [("MULTI",), *(args for args, _ in commands), ("EXEC",)]
            # A check of the connection's health would take the next answer for its own.
            packed = self._connection.pack_commands(arguments)
            self._connection.send_packed_command(packed, check_health=False)
        except redis.RedisError:
            self._send_again()

    def wait(self) -> None:
        """Wait for all answers."""
        try:
            while self._unanswered:
                self._read_answer()
            self._release()
        except redis.RedisError:
            self._send_again()

    def close(self) -> None:
        """Close connections opened after kombu closed the channel's."""
        self._client.connection_pool.disconnect()

    def _is_answered(self) -> bool:
        """Return whether the oldest transaction is answered, or must be by now."""
        is_late = len(self._unanswered) > _MOST_UNANSWERED
        return is_late or bool(self._connection.can_read(timeout=0))

    def _read_answer(self) -> None:
        answers: list[Any] = []
        for _ in range(len(self._unanswered[0]) + 2):  # with those to MULTI and EXEC
            answers = self._connection.read_response()
        for answer in answers:
            if isinstance(answer, redis.RedisError):
                raise answer
        self._unanswered.popleft()

    def _send_again(self) -> None:
        if self._connection is not None:
            self._connection.disconnect()
            self._release()
        with self._client.pipeline() as pipe:
            for args, options in (command for sent in self._unanswered for command in sent):
                pipe.execute_command(*args, **options)
            self._unanswered.clear()
            pipe.execute()

    def _release(self) -> None:
        """Return the connection to the pool, which checks it before its next use."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._client.connection_pool.release(connection)


class _Transaction(Pipeline):
    """A transaction that is sent without waiting for its answer.

    Args:
        notes: Where it is sent.
        client: As of a pipeline.
    """

    def __init__(self, notes: _Notes, client: Any) -> None:
        super().__init__(client.connection_pool, client.response_callbacks, True, None)
        self._notes = notes

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send the transaction; the returned values mean nothing."""
        commands, self.command_stack = self.command_stack, []
        self._notes.send(commands)
        return []


class PromptQoS(_base_qos):  # type: ignore[misc]  # it is a class
    """Records unacknowledged messages without waiting for the server's answers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._notes: _Notes | None = None

    @contextmanager
    def pipe_or_acquire(self, pipe: Any = None, client: Any = None) -> Iterator[Any]:
        """Return the given pipeline, or one that does not wait."""
        if pipe is not None or client is not None:
            with super().pipe_or_acquire(pipe, client) as given:
                yield given
            return
        with self.channel.conn_or_acquire() as own:
            if self._notes is None:
                self._notes = _Notes(own)
            yield _Transaction(self._notes, own)

    def restore_by_tag(self, *args: Any, **kwargs: Any) -> None:
        """Put a message back once the server has recorded it as unacknowledged."""
        if self._notes is not None:
            self._notes.wait()
        super().restore_by_tag(*args, **kwargs)

    def restore_unacked_once(self, *args: Any, **kwargs: Any) -> None:
        """Put all messages back once the server has recorded the acknowledgements."""
        if self._notes is not None:
            with contextlib.suppress(redis.RedisError, OSError):
                self._notes.wait()
            self._notes.close()
        super().restore_unacked_once(*args, **kwargs)


class PromptChannel(_base_channel):  # type: ignore[misc]  # it is a class
    """A channel that acknowledges without waiting, and puts the last message back."""

    QoS = PromptQoS

    def hand_back(self) -> None:
        """Put back the message, if any, for which the server was asked before consumers ended.

        The server answers within a second. Kombu reads that answer when the channel is closed;
        until then no other worker could have the message.
        """
        if self._in_poll and not self.active_queues:
            with contextlib.suppress(Empty, redis.RedisError, OSError):
                self._brpop_read()


class PromptTransport(_base_transport):  # type: ignore[misc]  # it is a class
    """A transport that acknowledges messages without waiting."""

    Channel = PromptChannel
