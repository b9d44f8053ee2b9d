import ssl
from typing import Any

import pytest

from pyrmute_tasks.distributed.broker_profile import broker_profile
from pyrmute_tasks.engine.job_spec import OnCodeMismatch
from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.logs import hide_password
from pyrmute_tasks.settings import Compress, Settings, compression_of
from pyrmute_tasks.wire.frames import Compression


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
        ({"PYRMUTE_TASKS_JOB_TTL_S": "inf"}, "job_ttl_s must be at most 315,360,000 seconds"),
        ({"PYRMUTE_TASKS_HEARTBEAT_S": "3601"}, "heartbeat_s must be at most 3,600 seconds"),
        ({"PYRMUTE_TASKS_BROKER_URL": "amqp://h"}, "store_url must be set"),
        ({"PYRMUTE_TASKS_STORE_URL": "http://h"}, "store_url http://h must begin with"),
        *(
            ({"PYRMUTE_TASKS_BROKER_URL": url, "PYRMUTE_TASKS_STORE_URL": "redis://h"}, message)
            for url, message in (
                ("sentinel://:secret@h:26379", r"broker_url sentinel://:\*\*\*@h:26379 must begin"),
                ("sqs://", "broker_url sqs:// must begin with redis://"),
                ("localhost:6379", "broker_url localhost:6379 must begin with redis://"),
            )
        ),
    ],
)
def test_invalid_setting_is_reported(env: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Settings.from_env(env)


def test_unix_socket_url_is_converted_for_both_libraries() -> None:
    settings = Settings(broker_url="unix:///tmp/x.sock")
    assert settings.celery_broker_url == "redis+socket:///tmp/x.sock"
    assert settings.redis_store_url == "unix:///tmp/x.sock"
    assert Settings(broker_url="redis+socket:///x").redis_store_url == "unix:///x"
    assert Settings(broker_url="UNIX:///X").redis_store_url == "unix:///X"
    assert Settings(broker_url="Redis://H").redis_store_url == "redis://H"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:secret@host:6379/0", "redis://:***@host:6379/0"),
        ("amqp://user:secret@host//", "amqp://user:***@host//"),
        ("redis://host/0", "redis://host/0"),
        ("unix:///tmp/x.sock", "unix:///tmp/x.sock"),
        ("redis://secret@host/0", "redis://***@host/0"),
        (" redis://user:sec@ret/@host", " redis://user:***@host"),
        ("--broker=redis://:secret@host", "--broker=redis://:***@host"),
        ("redis://host/0?Password=secret&db=1", "redis://host/0?Password=***&db=1"),
        ("secret", "***"),
        ("secret@host:6379", "***"),
        ("redis:/user:secret@host", "***"),
        ("localhost:6379", "localhost:6379"),
        ("", ""),
    ],
)
def test_passwords_are_not_shown(url: str, shown: str) -> None:
    assert hide_password(url) == shown


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
def test_frames_are_compressed_across_a_network(
    url: str, compress: str, expected: Compression
) -> None:
    assert compression_of(Settings(broker_url=url, compress=Compress(compress))) is expected


def test_every_setting_survives_the_way_through_variables() -> None:
    settings = Settings(
        on_code_mismatch=OnCodeMismatch.WARN,
        compress=Compress.NEVER,
        memory_limit_bytes=7,
        time_limit_s=9000.0,
    )
    assert Settings.from_env(settings.to_env()) == settings


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("PYRMUTE_TASKS_ON_CODE_MISMATCH", "open", "must be reject or warn"),
        ("PYRMUTE_TASKS_COMPRESS", "zip", "must be auto, always, never"),
        ("PYRMUTE_TASKS_MEMORY_LIMIT_BYTES", "1 GB", "must be a whole number"),
        ("PYRMUTE_TASKS_MEMORY_LIMIT_BYTES", "-1", "must be 0 or more"),
        ("PYRMUTE_TASKS_TIME_LIMIT_S", "60", "must be more than soft_time_limit_s"),
    ],
)
def test_invalid_limits_are_reported(variable: str, value: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Settings.from_env({variable: value})


@pytest.mark.parametrize(
    "url",
    [
        "redis://:p/wsecret@h:6379/0",
        "redis://:p#wsecret@h:6379/0",
        "redis://:p?wsecret@h:6379/0",
        "redis://:wsecret@h:99999/0",
        "rediss://u:wsecret@h/0?ssl_ca_certs=/nowhere",
        "rediss://u:wsecret@h/0?ssl_cert_reqs=maybe",
        "rediss://u:wsecret@h/0?ssl_other=1",
        "redis://u:wsecret@h/0?ssl_cert_reqs=none",
        "redis://u:wsecret@h/zero",
        "unix://:p/wsecret@/tmp/x.sock",
        "amqp://u:p/wsecret@h/v",
    ],
)
def test_urls_that_mislead_are_refused_without_the_password(url: str) -> None:
    store = "redis://s" if url.startswith("amqp") else ""
    with pytest.raises(ConfigurationError) as told:
        Settings(broker_url=url, store_url=store)
    assert "wsecret" not in str(told.value)
    assert told.value.__suppress_context__ or told.value.__context__ is None


def test_settings_are_shown_without_passwords() -> None:
    settings = Settings(
        broker_url="amqp://u:wsecret@h/v", store_url="unix:///tmp/x?db=2&password=wsecret"
    )
    assert "wsecret" not in repr(settings)
    assert "amqp://u:***@h/v" in repr(settings)
    assert "password=***" in repr(settings)


@pytest.mark.parametrize(
    ("url", "for_celery"),
    [
        ("unix:///tmp/x?db=2", "redis+socket:///tmp/x?virtual_host=2"),
        ("unix:///tmp/x?password=p%2Fw", "redis+socket://:p%2Fw@/tmp/x"),
        ("redis://:p%2Fw@h:1/0?db=3", "redis://:p%2Fw@h:1/3"),
        ("rediss://h/1?ssl_cert_reqs=none", "rediss://h/1"),
    ],
)
def test_database_and_password_reach_both_libraries(url: str, for_celery: str) -> None:
    assert Settings(broker_url=url).celery_broker_url == for_celery


def test_certificates_are_verified_by_default() -> None:
    redis = Settings(broker_url="rediss://h/0")
    assert redis.celery_broker_tls == {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
    assert "ssl_cert_reqs=required" in redis.redis_store_url
    rabbit = Settings(broker_url="amqps://h/v", store_url="redis://s")
    assert rabbit.celery_broker_tls == {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": "h"}
    off = Settings(broker_url="amqps://h/v?ssl_cert_reqs=none", store_url="redis://s")
    assert off.celery_broker_tls == {"cert_reqs": ssl.CERT_NONE}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"on_code_mismatch": "nonsense"}, "on_code_mismatch must be reject or warn"),
        ({"compress": "nonsense"}, "compress must be auto, always, never"),
        ({"stall_s": "soon"}, "stall_s must be a number of seconds, not 'soon'"),
        ({"stall_s": None}, "stall_s must be a number of seconds, not None"),
        ({"stall_s": True}, "stall_s must be a number of seconds, not True"),
        ({"stall_s": 10**400}, "stall_s must be a number of seconds"),
        ({"memory_limit_bytes": 1.5}, "memory_limit_bytes must be a whole number, not 1.5"),
        ({"queue": 5}, "queue must be text, not int"),
        ({"secret": b"0123456789abcdef"}, "secret must be text, not bytes"),
        ({"broker_url": None}, "broker_url must be text, not NoneType"),
    ],
)
def test_value_of_another_kind_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        Settings(**values)
    assert "0123456789abcdef" not in str(caught.value)


def test_values_become_their_fields_types() -> None:
    given: dict[str, Any] = {
        "on_code_mismatch": "warn",
        "compress": "never",
        "stall_s": 30,
        "outage_s": "45.5",
        "memory_limit_bytes": "1000",
    }
    settings = Settings(**given)
    assert settings.on_code_mismatch is OnCodeMismatch.WARN
    assert settings.compress is Compress.NEVER
    assert (settings.stall_s, type(settings.stall_s)) == (30.0, float)
    assert (settings.outage_s, settings.memory_limit_bytes) == (45.5, 1000)
    assert Settings.from_env(settings.to_env()) == settings


def test_unknown_variable_can_be_a_warning() -> None:
    env = {"PYRMUTE_TASKS_QUEUE": "mine", "PYRMUTE_TASKS_FUTURE": "1"}
    with pytest.warns(UserWarning, match="there is no setting PYRMUTE_TASKS_FUTURE") as told:
        assert Settings.from_env(env, ignore_unknown=True).queue == "mine"
    assert told[0].filename == __file__


def test_urls_of_valkey_are_those_of_redis() -> None:
    plain = Settings(broker_url="valkey://:pw@host:1/2")
    assert plain.celery_broker_url == "redis://:pw@host:1/2"
    assert plain.redis_store_url == "redis://:pw@host:1/2"
    assert plain.celery_broker_tls is None
    secure, known = (Settings(broker_url=f"{scheme}://host/2") for scheme in ("valkeys", "rediss"))
    assert secure.celery_broker_url == known.celery_broker_url
    assert secure.redis_store_url == known.redis_store_url
    assert secure.celery_broker_tls == known.celery_broker_tls
    assert "pw" not in repr(plain)
    assert broker_profile(plain).__class__ is broker_profile(known).__class__
    with pytest.raises(ConfigurationError, match="must begin with rediss, valkeys or amqps"):
        Settings(broker_url="valkey://host?ssl_cert_reqs=none")
