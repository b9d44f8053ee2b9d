"""URLs of brokers and stores: checks, hidden passwords, conversion for each library.

`check_url` rejects URLs that the libraries misread or answer with a traceback. `celery_url`,
`tls_of_broker` and `store_url` convert a URL for kombu, amqp and redis-py, which each read it in
their own way.
"""

import re
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from pyrmute_tasks.errors import ConfigurationError

__all__ = [
    "BROKER_SCHEMES",
    "REDIS_SCHEMES",
    "celery_url",
    "check_url",
    "hide_password",
    "store_url",
    "tls_of_broker",
]

REDIS_SCHEMES: Final = ("redis", "rediss", "valkey", "valkeys", "unix", "redis+socket")
_AMQP_SCHEMES: Final = ("amqp", "amqps", "pyamqp")

BROKER_SCHEMES: Final = (*REDIS_SCHEMES, *_AMQP_SCHEMES)
"""Schemes of brokers; `distributed.broker_profile` has a class for each kind."""

_SOCKETS: Final = ("unix", "redis+socket")
_TLS: Final = ("rediss", "valkeys", "amqps")
_VALKEY: Final = {"valkey": "redis", "valkeys": "rediss"}  # the libraries know these names
_TLS_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_TLS_OPTIONS: Final = (*_TLS_FILES, "ssl_cert_reqs", "ssl_check_hostname")
_CERT_REQS: Final = ("required", "none")
_ADDRESS: Final = re.compile(r"[\w.-]+:\d{1,5}(/\d*)?")  # a URL's scheme was forgotten
_QUERY: Final = re.compile(r"(password=)[^&]*", re.IGNORECASE)
_ENCODE: Final = "write / as %2F, # as %23, ? as %3F and @ as %40 in user and password"


def hide_password(url: str) -> str:
    """Return `url` with all that may be a password replaced by ``***``, even if it is no URL."""
    scheme, is_url, rest = url.partition("://")
    if not is_url:
        return url if not url or _ADDRESS.fullmatch(url) else "***"
    login, at, address = rest.rpartition("@")  # a password may have any character
    user, colon, _ = login.partition(":")
    hidden = f"{user}:***@" if colon else "***@" * len(at)
    return scheme + is_url + hidden + _QUERY.sub(r"\1***", address)


def check_url(name: str, url: str) -> None:
    """Check a URL of a broker or a store.

    Args:
        name: The setting's name, for messages.
        url: The URL.

    Raises:
        ConfigurationError: If it is invalid; the message never quotes a password.
    """
    shown = f"{name} {hide_password(url)}"
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        reason = (
            "the port is not a number up to 65535" if "ort" in str(error) else "it is not a URL"
        )
        raise ConfigurationError(f"{shown} cannot be read: {reason}; {_ENCODE}") from None
    is_socket = parts.scheme in _SOCKETS
    if (
        parts.fragment
        or (is_socket and parts.netloc and not parts.netloc.endswith("@"))
        or (not is_socket and "@" in parts.path + parts.query.partition("=")[0])
    ):
        raise ConfigurationError(f"{shown} cannot be read: {_ENCODE}")
    if parts.scheme in REDIS_SCHEMES and not (_database(parts) or "0").isdecimal():
        raise ConfigurationError(f"{shown} must name a database by its number")
    _check_tls(shown, parts)


def _check_tls(shown: str, parts: SplitResult) -> None:
    options = {key: value for key, value in _query(parts).items() if key.startswith("ssl_")}
    if not options:
        return
    if parts.scheme not in _TLS:
        raise ConfigurationError(
            f"{shown} has options of TLS: it must begin with rediss, valkeys or amqps"
        )
    unknown = options.keys() - set(_TLS_OPTIONS)
    if unknown:
        raise ConfigurationError(
            f"{shown} has no option {', '.join(sorted(unknown))}; the options of TLS are "
            f"{', '.join(_TLS_OPTIONS)}"
        )
    if options.get("ssl_cert_reqs", "none") not in _CERT_REQS:
        raise ConfigurationError(f"{shown}: ssl_cert_reqs must be {' or '.join(_CERT_REQS)}")
    for key in _TLS_FILES:
        if key in options and not Path(options[key]).is_file():
            raise ConfigurationError(f"{shown}: {key} names no file: {options[key]}")


def celery_url(url: str) -> str:
    """Return a broker's URL for kombu; `tls_of_broker` returns its TLS options."""
    parts = urlsplit(url)
    if parts.scheme in _AMQP_SCHEMES:
        rest = {key: value for key, value in _query(parts).items() if not key.startswith("ssl_")}
        return parts._replace(query=urlencode(rest)).geturl()
    if parts.scheme not in REDIS_SCHEMES:
        return url
    query = _query(parts)
    user = query.get("username", unquote(parts.username or ""))
    password = query.get("password", unquote(parts.password or ""))
    login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user or password else ""
    database = _database(parts) or "0"
    if parts.scheme in _SOCKETS:
        place = "" if database == "0" else f"?virtual_host={database}"
        return f"redis+socket://{login}{parts.path}{place}"
    address = parts.netloc.rpartition("@")[2]
    return f"{_library_scheme(parts)}://{login}{address}/{database}"


def tls_of_broker(url: str) -> dict[str, Any] | None:
    """Return Celery's ``broker_use_ssl``; the server's certificate is verified by default."""
    parts = urlsplit(url)
    if parts.scheme not in _TLS:
        return None
    options = _tls_options(parts)
    if parts.scheme in REDIS_SCHEMES:
        return options
    files = {key.removeprefix("ssl_"): options[key] for key in _TLS_FILES if key in options}
    import ssl  # ten milliseconds that URLs without TLS do not need

    verify = ssl.CERT_REQUIRED if options["ssl_cert_reqs"] == "required" else ssl.CERT_NONE
    # If there is a name, the library compares it with the certificate's.
    name = {"server_hostname": parts.hostname} if options["ssl_check_hostname"] else {}
    return {**files, **name, "cert_reqs": verify}


def store_url(url: str) -> str:
    """Return a store's URL for redis-py; the certificate is verified by default."""
    parts = urlsplit(url)
    if parts.scheme == "redis+socket":
        query = _query(parts)
        if "virtual_host" in query:
            query["db"] = query.pop("virtual_host")
        return f"unix://{parts.netloc}{parts.path}{'?' if query else ''}{urlencode(query)}"
    scheme = _library_scheme(parts)
    if parts.scheme not in _TLS:
        return scheme + url[len(parts.scheme) :]  # the library knows it in lower case only
    query = _query(parts) | {key: str(value) for key, value in _tls_options(parts).items()}
    return parts._replace(scheme=scheme, query=urlencode(query)).geturl()


def _library_scheme(parts: SplitResult) -> str:
    return _VALKEY.get(parts.scheme, parts.scheme)


def _tls_options(parts: SplitResult) -> dict[str, Any]:
    query = _query(parts)
    files: dict[str, Any] = {key: query[key] for key in _TLS_FILES if key in query}
    verify = query.get("ssl_cert_reqs", "required")
    named = query.get("ssl_check_hostname", "true").lower() not in {"false", "0", "no"}
    check = {"ssl_cert_reqs": verify, "ssl_check_hostname": named and verify == "required"}
    return {**files, **check}


def _database(parts: SplitResult) -> str:
    query = _query(parts)
    if parts.scheme in _SOCKETS:
        return query.get("db") or query.get("virtual_host", "")
    return query.get("db") or parts.path.strip("/")


def _query(parts: SplitResult) -> dict[str, str]:
    return dict(parse_qsl(parts.query))
