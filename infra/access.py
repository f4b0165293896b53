"""Who may ask over HTTP: anybody on this machine, or whoever shows the token. No web here."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

LEAST, MOST = 16, 1000  # characters of a token
CURE = f"use {LEAST} to {MOST} visible ASCII characters, as `openssl rand -hex 24` makes them"


def read_token(text: str) -> str:
    """FRESHREC_HTTP_TOKEN. Raises ValueError, which never shows it."""
    if not LEAST <= len(text) <= MOST:
        raise ValueError(f"it has {len(text)} characters: {CURE}")
    if not all("!" <= c <= "~" for c in text):
        raise ValueError(f"it has characters that no HTTP header carries: {CURE}")
    return text


def read_token_file(text: str) -> str:
    """The token in the file that FRESHREC_HTTP_TOKEN_FILE names, its last line's end left out."""
    path = Path(text).expanduser()
    try:
        if path.stat().st_size > 2 * MOST:
            raise ValueError(f"is no token's file: {CURE}")
        return read_token(path.read_text("ascii").strip())
    except OSError as error:
        cure = "name a file that this user may read"
        raise ValueError(f"cannot be read ({error.strerror}): {cure}") from None
    except UnicodeDecodeError:
        raise ValueError(f"is no token's file: {CURE}") from None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`. Of names, `localhost` alone is sure.

    >>> is_loopback("127.0.0.9"), is_loopback("::1"), is_loopback("0.0.0.0"), is_loopback("")
    (True, True, False, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def open_address(host: str, port: int, token: str) -> str | None:
    """The fault of an address that strangers reach and nobody guards."""
    if token or is_loopback(host):
        return None
    return (
        f"FRESHREC_HTTP={place(host, port)!r}: other machines reach this address: set "
        "FRESHREC_HTTP_TOKEN (or FRESHREC_HTTP_TOKEN_FILE), or use 127.0.0.1"
    )


def place(host: str, port: int) -> str:
    """`host:port` as it stands in a URL.

    >>> place("::1", 80)
    '[::1]:80'
    """
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def from_here(host: str) -> str:
    """The address by which this machine reaches what listens on `host`.

    >>> from_here("0.0.0.0"), from_here("::"), from_here("10.0.0.7")
    ('127.0.0.1', '::1', '10.0.0.7')
    """
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)


def shows(token: str, headers: Mapping[str, str]) -> bool:
    """Whether a request with `headers` shows the token, in any of the ways that clients have.

    `Authorization: Bearer TOKEN`; Basic with it as the password of any user; X-ClickHouse-Key.
    """
    wanted = token.encode()
    matching = [hmac.compare_digest(given, wanted) for given in _given(headers)]
    return any(matching)


def _given(headers: Mapping[str, str]) -> Iterator[bytes]:
    scheme, _, rest = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        yield _bytes(rest.strip())
    elif scheme.lower() == "basic":
        try:
            yield base64.b64decode(rest.strip(), validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            pass
    if "X-ClickHouse-Key" in headers:
        yield _bytes(headers["X-ClickHouse-Key"])


def _bytes(text: str) -> bytes:
    return os.fsencode(text)  # headers may hold any bytes, as surrogates
