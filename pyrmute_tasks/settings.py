"""Settings of a fleet, shared by producers and workers.

They come from arguments, or from ``PYRMUTE_TASKS_*`` variables with `Settings.from_env`. Nothing
reads the environment at import.
"""

import contextlib
import enum
import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from types import MappingProxyType
from typing import Final, Self
from urllib.parse import urlsplit

from pyrmute_tasks.celery_config import check_celery_config
from pyrmute_tasks.engine.job_spec import OnCodeMismatch
from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.urls import (
    BROKER_SCHEMES,
    REDIS_SCHEMES,
    celery_url,
    check_url,
    hide_password,
    store_url,
    tls_of_broker,
)
from pyrmute_tasks.wire.frames import Compression
from pyrmute_tasks.wire.signing import Signer, split_secrets

__all__ = ["ENV_PREFIX", "Compress", "Settings", "compression_of", "signer_of"]

ENV_PREFIX: Final = "PYRMUTE_TASKS_"

_LONGEST_S: Final = 10 * 365 * 86_400  # servers and the system's timers take no more for ever
_LONGEST_HEARTBEAT_S: Final = 3600


class Compress(enum.StrEnum):
    """When to compress chunks and outcomes."""

    AUTO = "auto"  # if they cross a network, or are signed
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Settings:
    """Settings of a fleet.

    Each field is also a variable: ``broker_url`` is ``PYRMUTE_TASKS_BROKER_URL``. What is given as
    text or as another kind of number becomes the field's type: ``"warn"``, ``"30"`` or ``30``.
    Shown, they hide passwords and the secret.

    Attributes:
        broker_url: Broker of tasks: ``redis://``, ``valkey://`` or ``unix://``; or RabbitMQ,
            ``amqp://``; with TLS ``rediss://``, ``valkeys://`` or ``amqps://``. With TLS the
            server's certificate is verified; ``?ssl_ca_certs=FILE``, ``ssl_certfile``,
            ``ssl_keyfile`` set your own files, and ``ssl_cert_reqs=none`` turns verification off.
            The same holds for `store_url`.
        store_url: Store of chunks and outcomes: Redis or Valkey. By default the broker, if it is
            Redis too.
        manager: Name of the manager that workers run: ``package.module:attribute`` or
            ``path/to/file.py:attribute``. Producers do not need it.
        queue: Name of the Celery queue.
        job_ttl_s: Lifetime of a job's keys in the store after the producer's last sign of life.
        heartbeat_s: Interval of a worker's heartbeats. A worker that misses three is gone.
        worker_wait_s: How long a job waits for a first worker.
        outage_s: How long a producer or a worker retries a broker or store that answered before.
        stall_s: How long a job waits while workers with the right code are idle and none of its
            chunks moves. A running chunk counts as moving until its time limit.
        code_wait_s: How long a job waits for another worker if all decline it because their code
            differs. Ten times as long while some worker has not replied: it may be busy with
            other jobs.
        on_code_mismatch: What workers with other code do with this producer's jobs.
        soft_time_limit_s: Time limit of a chunk. A worker gives it up; the second time it is
            halved, down to the slow record.
        time_limit_s: Time after which a worker's child that did not give up is killed.
        compress: When to compress chunks and outcomes.
        memory_limit_bytes: Limit of the address space of a worker's child; 0 for none.
        secret: Key that producers and workers sign with; the same for all of them. To change it,
            list several, separated by commas: the first one signs, all verify. By default
            nothing is signed. It is not part of the settings' ``repr``.
        celery_config: Settings of Celery for the workers' and producers' application, by their
            names in lower case; as a variable a JSON object. What would break a promise of this
            library is refused, with the reason.
        roots: Folders in which workers read and write files themselves (by reference), separated
            by colons. By default there are none, and files travel through the producer. Needs
            `secret`: otherwise anybody who can write to the store could have files read.
        roots_file: A file to which producers add such folders. Only an embedded fleet has one, in
            its private folder: its producer is the same user on the same host.
        jobs_root: The directory of submitted jobs; submitters, coordinators and, by reference,
            workers see it at the same path. Empty for none.

    Raises:
        ConfigurationError: If a value is invalid, or two contradict each other.

    Example:
        ```python
        settings = Settings(broker_url="redis://queue.internal/0", stall_s=120)
        with Migrator("my_app.models:manager", settings=settings) as migrator:
            migrator.migrate_file("old.jsonl", "new.jsonl", "User", "1.0.0", "3.0.0")
        ```
    """

    broker_url: str = "redis://127.0.0.1:6379/0"
    store_url: str = ""
    manager: str = ""
    queue: str = "pyrmute-tasks"
    job_ttl_s: float = 1800.0
    heartbeat_s: float = 1.0
    worker_wait_s: float = 5.0
    outage_s: float = 60.0
    stall_s: float = 60.0
    code_wait_s: float = 30.0
    on_code_mismatch: OnCodeMismatch = OnCodeMismatch.REJECT
    soft_time_limit_s: float = 840.0
    time_limit_s: float = 870.0
    memory_limit_bytes: int = 0
    compress: Compress = Compress.AUTO
    secret: str = field(default="", repr=False)
    celery_config: Mapping[str, object] = field(default_factory=dict, hash=False)
    roots: str = ""
    roots_file: str = ""
    jobs_root: str = ""

    def __post_init__(self) -> None:
        for option in fields(self):
            given = getattr(self, option.name)
            object.__setattr__(self, option.name, _coerced(option, given))
        self._check_urls()
        for option in fields(self):
            value = getattr(self, option.name)
            if option.name.endswith("_s") and not value > 0:
                raise ConfigurationError(f"{option.name} must be more than 0, not {value!r}")
            most = _LONGEST_HEARTBEAT_S if option.name == "heartbeat_s" else _LONGEST_S
            if option.name.endswith("_s") and value > most:
                raise ConfigurationError(
                    f"{option.name} must be at most {most:,} seconds, not {value!r}"
                )
        if not self.queue:
            raise ConfigurationError("queue must not be empty")
        if self.time_limit_s <= self.soft_time_limit_s:
            raise ConfigurationError(
                f"time_limit_s must be more than soft_time_limit_s ({self.soft_time_limit_s:g}), "
                f"not {self.time_limit_s:g}"
            )
        if self.memory_limit_bytes < 0:
            raise ConfigurationError("memory_limit_bytes must be 0 or more; 0 sets no limit")
        check_celery_config(self.celery_config)
        self._check_secret()

    def _check_secret(self) -> None:
        split_secrets(self.secret)  # raises for one that is too short
        if self.roots and not self.secret:
            raise ConfigurationError(
                "roots (--root) need a secret: set PYRMUTE_TASKS_SECRET on producers and workers, "
                "so that nobody else who can write to the store has files read or written"
            )

    def _check_urls(self) -> None:
        check_url("broker_url", self.broker_url)
        check_url("store_url", self.store_url)
        if not self.broker_url:
            raise ConfigurationError(
                "broker_url (--broker) is empty: give the URL of a running fleet's broker, as "
                "redis://queue.internal:6379/0, or leave it out"
            )
        if _scheme(self.broker_url) not in BROKER_SCHEMES:
            raise ConfigurationError(
                f"broker_url {hide_password(self.broker_url)} must begin with "
                f"{', '.join(s + '://' for s in BROKER_SCHEMES)}"
            )
        if not self.store_url and _scheme(self.broker_url) not in REDIS_SCHEMES:
            raise ConfigurationError(
                "store_url must be set when the broker is not Redis: chunks and outcomes are kept "
                "in a Redis or Valkey server"
            )
        if self.store_url and _scheme(self.store_url) not in REDIS_SCHEMES:
            raise ConfigurationError(
                f"store_url {hide_password(self.store_url)} must begin with "
                f"{', '.join(s + '://' for s in REDIS_SCHEMES)}"
            )

    @classmethod
    def from_env(
        cls, env: Mapping[str, str] | None = None, *, ignore_unknown: bool = False
    ) -> Self:
        """Read the settings from variables; settings without one keep their default.

        Args:
            env: The variables; by default those of this process, as they are now.
            ignore_unknown: Warn of ``PYRMUTE_TASKS_*`` variables that are not settings, as those of
                another version of this package, instead of raising an error.

        Returns:
            The settings.

        Raises:
            ConfigurationError: If a variable is unknown or its value invalid.
        """
        known = {f"{ENV_PREFIX}{option.name.upper()}": option for option in fields(cls)}
        values: dict[str, object] = {}
        for variable, value in (os.environ if env is None else env).items():
            if not variable.startswith(ENV_PREFIX) or not value:
                continue
            if variable in known:
                option = known[variable]
                values[option.name] = _read(variable, option, value)
                continue
            message = f"there is no setting {variable}; the settings are {', '.join(sorted(known))}"
            if not ignore_unknown:
                raise ConfigurationError(message)
            warnings.warn(message, stacklevel=2)
        return cls(**values)  # type: ignore[arg-type]  # checked against the fields above

    def to_env(self) -> dict[str, str]:
        """Return the settings as variables for `from_env`.

        Returns:
            The variables, with passwords and the secret.
        """
        return {
            f"{ENV_PREFIX}{option.name.upper()}": _as_text(getattr(self, option.name))
            for option in fields(self)
            if getattr(self, option.name) not in ("", {})
        }

    @property
    def root_paths(self) -> tuple[str, ...]:
        """The folders that `roots` names."""
        return tuple(filter(None, self.roots.split(os.pathsep)))

    @property
    def celery_broker_url(self) -> str:
        """The broker's URL as kombu wants it: ``redis+socket://`` for a unix socket."""
        return celery_url(self.broker_url)

    @property
    def celery_broker_tls(self) -> dict[str, object] | None:
        """Celery's TLS options for the broker; None without TLS."""
        return tls_of_broker(self.broker_url)

    @property
    def redis_store_url(self) -> str:
        """The store's URL as redis-py wants it: ``unix://`` for a unix socket."""
        return store_url(self.store_url or self.broker_url)

    def __repr__(self) -> str:
        """Show the settings, without passwords and secrets."""
        shown = {option.name: getattr(self, option.name) for option in fields(self) if option.repr}
        for name in ("broker_url", "store_url"):
            shown[name] = hide_password(shown[name])
        shown["celery_config"] = dict.fromkeys(self.celery_config, ...)  # may hold passwords
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in shown.items())})"


def signer_of(settings: Settings) -> Signer:
    """Return the signer and verifier for the settings' secret."""
    return Signer(split_secrets(settings.secret))


def compression_of(settings: Settings) -> Compression:
    """Return the compression of chunks and outcomes for the settings' store.

    zstd at level 1 takes 660 MB/s a core: less time than it saves on a network, and more than
    on a unix socket. Signed bytes are hashed at both ends of both ways, which takes longer than
    compressing them.
    """
    if settings.compress is Compress.AUTO:
        crosses = _crosses_a_network(settings.redis_store_url)
        return Compression.ZSTD if crosses or settings.secret else Compression.NONE
    return Compression.ZSTD if settings.compress is Compress.ALWAYS else Compression.NONE


def _crosses_a_network(url: str) -> bool:
    parts = urlsplit(url)
    if parts.scheme in {"unix", "redis+socket"}:
        return False
    host = parts.hostname or "localhost"
    return host not in {"localhost", "::1"} and not host.startswith("127.")


def _scheme(url: str) -> str:
    return urlsplit(url).scheme


def _as_text(value: object) -> str:
    return json.dumps(dict(value)) if isinstance(value, Mapping) else str(value)


def _read(variable: str, option: "Field[object]", text: str) -> object:
    if option.name == "celery_config":
        return _mapping(variable, text)
    return _parsed(variable, text, type(option.default))


def _mapping(name: str, value: object) -> Mapping[str, object]:
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = json.loads(value)
    if isinstance(value, Mapping):
        return dict(value)  # what the caller changes later was not checked
    raise ConfigurationError(
        f'{name} must be a mapping; as text a JSON object, as {{"worker_max_tasks_per_child": 100}}'
    )


def _coerced(option: "Field[object]", value: object) -> object:
    """Return the value of a setting in its field's type."""
    if option.name == "celery_config":
        return _mapping(option.name, value)
    kind = type(option.default)
    is_bool = isinstance(value, bool)
    if isinstance(value, kind) and not is_bool:
        return value
    if isinstance(value, str) or (kind is float and isinstance(value, int) and not is_bool):
        return _parsed(option.name, value, kind)
    shown = type(value).__name__ if kind is str else repr(value)  # a secret is never shown
    raise ConfigurationError(f"{option.name} must be {_WANTED[kind]}, not {shown}")


def _parsed(variable: str, value: object, kind: type) -> object:
    try:
        return kind(value)
    except (ValueError, OverflowError):
        wanted = _WANTED[kind]
        raise ConfigurationError(f"{variable} must be {wanted}, not {value!r}") from None


_WANTED: Final[Mapping[type, str]] = MappingProxyType(
    {
        str: "text",
        float: "a number of seconds",
        int: "a whole number",
        OnCodeMismatch: " or ".join(OnCodeMismatch),
        Compress: ", ".join(Compress),
    }
)
