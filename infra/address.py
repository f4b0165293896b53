"""URL-shaped addresses of what is outside the process: the broker and the warehouse."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

SECURITY = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
OPTIONS = ("security_protocol", "sasl_mechanism", "ssl_cafile", "ssl_certfile", "ssl_keyfile")
WAREHOUSE_CURE = "use chdb:///absolute/folder or clickhouse://user:password@host:port/database"
BROKER_CURE = (
    "use embedded, embedded:PORT or kafka://[user:password@]host:port[,host:port]"
    "[?security_protocol=SASL_SSL&sasl_mechanism=SCRAM-SHA-512]"
)

ENCODE = (
    "a character of user or password ends them: percent-encode all but letters and digits, such "
    "as @ as %40, / as %2F, ? as %3F, # as %23"
)
WAREHOUSE_OPTIONS = (
    "secure", "verify", "ca_certs", "server_hostname", "connect_timeout", "timeout",
)  # fmt: skip
_TOLD = frozenset(OPTIONS + WAREHOUSE_OPTIONS)  # their values are no secrets


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where the broker is, or that we bring our own (`embedded`)."""

    embedded: bool = False
    port: int = 0  # of the embedded broker; 0: a free one
    servers: tuple[str, ...] = ()  # "host:port"
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ssl_cafile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None

    @classmethod
    def at(cls, server: str) -> BrokerAddress:
        """A broker without security at `host:port`."""
        return cls(servers=(server,))

    @classmethod
    def parse(cls, text: str) -> BrokerAddress:
        """Read FRESHREC_BROKER. Raises ValueError with the cure, never showing a password.

        >>> BrokerAddress.parse("kafka://a:9092,b:9093").servers
        ('a:9092', 'b:9093')
        >>> BrokerAddress.parse("embedded:9092").port
        9092
        """
        if text == "embedded":
            return cls(embedded=True)
        if text.startswith("embedded:"):
            return cls(embedded=True, port=_port(text.removeprefix("embedded:")))
        url = _split(text, BROKER_CURE)
        if url.scheme != "kafka" or not url.netloc or url.path.strip("/"):
            raise ValueError(BROKER_CURE)
        credentials, _, hosts = url.netloc.rpartition("@")
        options = _options(url.query)
        username, _, password = credentials.partition(":")
        protocol = options.pop("security_protocol", "SASL_SSL" if credentials else "PLAINTEXT")
        mechanism = options.pop("sasl_mechanism", None)
        if protocol.startswith("SASL"):
            mechanism = mechanism or "PLAIN"
            if not (username and password):
                raise ValueError(f"{protocol} needs user:password@ before the host")
        elif credentials or mechanism:
            raise ValueError(f"user, password or mechanism with security_protocol={protocol}: "
                             "use SASL_SSL (or SASL_PLAINTEXT)")  # fmt: skip
        return cls(
            servers=tuple(_server(host) for host in hosts.split(",")),
            security_protocol=protocol,
            sasl_mechanism=mechanism,
            username=unquote(username) or None,
            password=unquote(password) or None,
            **options,
        )

    def client_options(self) -> dict[str, Any]:
        """Arguments of kafka-python's clients that reach this broker."""
        options: dict[str, Any] = {
            "bootstrap_servers": list(self.servers),
            "security_protocol": self.security_protocol,
        }
        if self.sasl_mechanism:
            options["sasl_mechanism"] = self.sasl_mechanism
            options["sasl_plain_username"] = self.username
            options["sasl_plain_password"] = self.password
        for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
            if getattr(self, name):
                options[name] = getattr(self, name)
        return options

    def __str__(self) -> str:
        """For people and logs: no user, no password."""
        if self.embedded:
            return f"embedded:{self.port}" if self.port else "embedded"
        return "kafka://" + ",".join(self.servers)


def _options(query: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in OPTIONS:
            raise ValueError(f"the option {name!r} is unknown: use {', '.join(OPTIONS)}")
        allowed = {"security_protocol": SECURITY, "sasl_mechanism": MECHANISMS}.get(name)
        if allowed and value.upper() not in allowed:
            raise ValueError(f"{name}={value!r}: use one of {', '.join(allowed)}")
        if not allowed and not Path(value).is_file():
            raise ValueError(f"{name}={value!r} is no file: name one that can be read")
        options[name] = value.upper() if allowed else value
    return options


def _server(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon:
        host, port = text, "9092"
    if not host or any(c.isspace() for c in host):
        raise ValueError(BROKER_CURE)
    return f"{host}:{_port(port)}"


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise ValueError(f"the port {text!r} is not a number from 1 to 65535; {BROKER_CURE}")
    return int(text)


def warehouse_url(text: str) -> str:
    """Check the shape of FRESHREC_WAREHOUSE; `infra.warehouse.connect` reads the rest.

    >>> warehouse_url("chdb:///var/lib/freshrec")
    'chdb:///var/lib/freshrec'
    """
    url = _split(text, WAREHOUSE_CURE)
    if url.scheme == "chdb" and not url.netloc and url.path.startswith("/") and len(url.path) > 1:
        return text
    if url.scheme == "clickhouse" and url.hostname:
        return text
    raise ValueError(WAREHOUSE_CURE)


def without_password(url: str) -> str:
    """`url` as it may be shown, also one that cannot be read.

    >>> without_password("clickhouse://ann:secret@db:9000/shop?password=secret")
    'clickhouse://ann:***@db:9000/shop?password=***'
    >>> without_password("clickhouse://ann:sec/ret@db/shop")
    'clickhouse://ann:***@db/shop'
    """
    scheme, slashes, rest = url.partition("://")
    if not slashes:
        scheme, rest = "", url
    credentials, at, place = rest.rpartition("@")
    user, colon, _ = credentials.partition(":")
    if not re.fullmatch(r"[\w.%+-]*", user):
        user, colon = "***", ""
    place, question, query = place.partition("?")
    kept = [
        pair if pair.partition("=")[0] in _TOLD else f"{pair.partition('=')[0]}=***"
        for pair in query.split("&")
        if pair
    ]
    secret = ":***" if colon else ""
    return f"{scheme}{slashes}{user}{secret}{at}{place}{question}{'&'.join(kept)}"


def unreadable_credentials(url: str) -> bool:
    """Whether a password holds a character that ends it, and so would be read as host or path."""
    try:
        parts = urlsplit(url)
    except ValueError:  # its words may hold a part of the password
        return "@" in url
    return parts.scheme != "chdb" and url.count("@") != parts.netloc.count("@")


def _split(text: str, cure: str) -> SplitResult:
    if unreadable_credentials(text):
        raise ValueError(ENCODE)
    try:
        return urlsplit(text)
    except ValueError:
        raise ValueError(cure) from None
