"""Certificates for 127.0.0.1, made by the command openssl, and an authority that nobody trusts."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Certificates:
    authority: Path  # what clients trust
    certificate: Path
    key: Path
    stranger: Path  # another authority

    def context(self) -> ssl.SSLContext:
        """A server's."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=60)


def _authority(folder: Path, name: str) -> Path:
    _openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
             "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem")  # fmt: skip
    return folder / f"{name}.pem"


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Made once. Skips where there is no openssl, and fails there in CI."""
    if shutil.which("openssl") is None:
        cure = "openssl is not installed: apt-get install openssl"
        if os.environ.get("CI") == "true":
            pytest.fail(cure)
        pytest.skip(cure)
    folder = tmp_path_factory.mktemp("certificates")
    authority = _authority(folder, "authority")
    names = folder / "names"
    names.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    key, request, certificate = (folder / f"server.{end}" for end in ("key", "csr", "pem"))
    _openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=server",
             "-keyout", key, "-out", request)  # fmt: skip
    _openssl("x509", "-req", "-in", request, "-CA", authority, "-CAkey", folder / "authority.key",
             "-CAcreateserial", "-days", "2", "-extfile", names, "-out", certificate)  # fmt: skip
    return Certificates(authority, certificate, key, _authority(folder, "stranger"))
