import pytest

from pyrmute_tasks.codec import Compression
from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.jobs import Fence
from pyrmute_tasks.observability import hide_password, task_label
from pyrmute_tasks.settings import Compress, Settings


def test_settings_survive_the_environment() -> None:
    settings = Settings(
        broker_url="amqp://guest@host//",
        store_url="rediss://:pw@host:1/2",
        manager="a.b:c",
        job_ttl_s=5.5,
    )
    env = settings.to_env()
    assert env["PYRMUTE_TASKS_JOB_TTL_S"] == "5.5"
    assert Settings.from_env(env | {"PATH": "/bin", "PYRMUTE_TASKS_QUEUE": ""}) == settings


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"PYRMUTE_TASKS_BROKER": "x"}, "there is no setting PYRMUTE_TASKS_BROKER"),
        ({"PYRMUTE_TASKS_JOB_TTL_S": "soon"}, "must be a number of seconds, not 'soon'"),
        ({"PYRMUTE_TASKS_JOB_TTL_S": "0"}, "job_ttl_s must be more than 0"),
        ({"PYRMUTE_TASKS_JOB_TTL_S": "nan"}, "job_ttl_s must be more than 0"),
        ({"PYRMUTE_TASKS_BROKER_URL": "amqp://h"}, "store_url must be set"),
        ({"PYRMUTE_TASKS_STORE_URL": "http://h"}, "store_url must begin with"),
    ],
)
def test_a_setting_that_cannot_be_right_is_told(env: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Settings.from_env(env)


def test_a_unix_socket_has_one_spelling_for_us_and_two_for_the_libraries() -> None:
    settings = Settings(broker_url="unix:///tmp/x.sock")
    assert settings.celery_broker_url == "redis+socket:///tmp/x.sock"
    assert settings.redis_store_url == "unix:///tmp/x.sock"
    assert Settings(broker_url="redis+socket:///x").redis_store_url == "unix:///x"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:secret@host:6379/0", "redis://:***@host:6379/0"),
        ("amqp://user:secret@host//", "amqp://user:***@host//"),
        ("redis://host/0", "redis://host/0"),
        ("unix:///tmp/x.sock", "unix:///tmp/x.sock"),
    ],
)
def test_passwords_are_not_shown(url: str, shown: str) -> None:
    assert hide_password(url) == shown


def test_a_tasks_label_says_which_records() -> None:
    label = task_label("User 1.0.0→3.0.0 · job 7f3a21c4", 12, 12000, 1000)
    assert label == "User 1.0.0→3.0.0 · job 7f3a21c4 · chunk 12 · records 12000–12999"


@pytest.mark.parametrize(
    ("url", "compress", "expected"),
    [
        ("unix:///tmp/x.sock", "auto", Compression.NONE),
        ("redis://localhost:6379/0", "auto", Compression.NONE),
        ("redis://:secret@127.0.0.1:6379/0", "auto", Compression.NONE),
        ("redis://store.internal:6379/0", "auto", Compression.ZSTD),
        ("rediss://10.0.0.7/0", "auto", Compression.ZSTD),
        ("redis://store.internal:6379/0", "never", Compression.NONE),
        ("unix:///tmp/x.sock", "always", Compression.ZSTD),
    ],
)
def test_what_crosses_a_network_is_compressed(
    url: str, compress: str, expected: Compression
) -> None:
    assert Settings(broker_url=url, compress=Compress(compress)).compression is expected


def test_every_setting_survives_the_way_through_variables() -> None:
    settings = Settings(
        fence=Fence.WARN, compress=Compress.NEVER, memory_limit_bytes=7, time_limit_s=9000.0
    )
    assert Settings.from_env(settings.to_env()) == settings


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("PYRMUTE_TASKS_FENCE", "open", "must be reject or warn"),
        ("PYRMUTE_TASKS_COMPRESS", "zip", "must be auto, always, never"),
        ("PYRMUTE_TASKS_MEMORY_LIMIT_BYTES", "1 GB", "must be a whole number"),
        ("PYRMUTE_TASKS_MEMORY_LIMIT_BYTES", "-1", "must be 0 or more"),
        ("PYRMUTE_TASKS_TIME_LIMIT_S", "60", "must be more than 840"),
    ],
)
def test_limits_that_cannot_be_right_are_told(variable: str, value: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Settings.from_env({variable: value})
