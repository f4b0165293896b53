"""The server's side of SASL's PLAIN and SCRAM (RFC 5802), for the tests' gateway."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets

ROUNDS = 4096
HASHES = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}


class Refused(Exception):
    """Wrong user or password."""


class Login:
    """One login: `step` takes what the client says and answers it; `done` in the end."""

    def __init__(self, mechanism: str, users: dict[str, str]) -> None:
        self.done = False
        self._users = users
        self._hash = HASHES.get(mechanism)
        self._said = ""  # the first two messages, without the header
        self._salted = b""

    def step(self, said: bytes) -> bytes:
        """Raises Refused."""
        if self._hash is None:
            return self._plain(said)
        return self._final(said.decode()) if self._said else self._first(said.decode())

    def _plain(self, said: bytes) -> bytes:
        _, user, password = said.decode().split("\0")
        if self._users.get(user) != password:
            raise Refused
        self.done = True
        return b""

    def _first(self, said: str) -> bytes:
        bare = said.removeprefix("n,,")
        fields = dict(part.split("=", 1) for part in bare.split(","))
        password = self._users.get(fields["n"].replace("=2C", ",").replace("=3D", "="))
        if password is None:
            raise Refused
        salt = secrets.token_bytes(16)
        assert self._hash is not None
        self._salted = hashlib.pbkdf2_hmac(self._hash, password.encode(), salt, ROUNDS)
        nonce = fields["r"] + secrets.token_hex(8)
        answer = f"r={nonce},s={base64.b64encode(salt).decode()},i={ROUNDS}"
        self._said = f"{bare},{answer}"
        return answer.encode()

    def _final(self, said: str) -> bytes:
        without_proof, _, proof = said.rpartition(",p=")
        everything = f"{self._said},{without_proof}".encode()
        client_key = self._mac(self._salted, b"Client Key")
        signature = self._mac(hashlib.new(self._hash or "", client_key).digest(), everything)
        wanted = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        if not hmac.compare_digest(base64.b64decode(proof), wanted):
            raise Refused
        self.done = True
        server_key = self._mac(self._salted, b"Server Key")
        return b"v=" + base64.b64encode(self._mac(server_key, everything))

    def _mac(self, key: bytes, text: bytes) -> bytes:
        return hmac.new(key, text, self._hash or "").digest()
