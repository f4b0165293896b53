"""docker-compose.yml and the Dockerfile: they start what is tested, and leak nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.settings import Settings

ROOT = Path(__file__).parent.parent
SECRETS = {
    "CLICKHOUSE_PASSWORD": "secret1",
    "CLICKHOUSE_READER_PASSWORD": "secret2",
    "KAFKA_CLUSTER_ID": "4L6g3nShT-eMCtK--X86sw",
}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def _compose_program() -> list[str] | None:
    if shutil.which("docker"):
        plugin = subprocess.run(["docker", "compose", "version"], capture_output=True)
        if plugin.returncode == 0:
            return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else None


@pytest.mark.skipif(_compose_program() is None, reason="no docker compose here")
def test_compose_reads_the_file_and_insists_on_every_secret(tmp_path: Path) -> None:
    program = _compose_program()
    assert program
    shutil.copytree(ROOT / "infra" / "compose", tmp_path / "infra" / "compose")
    shutil.copy(ROOT / "docker-compose.yml", tmp_path)
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}

    def config(**given: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*program, "config", "--quiet"],
            cwd=tmp_path, env=environ | given, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    accepted = config(**SECRETS)
    assert accepted.returncode == 0, accepted.stderr
    for name in SECRETS:
        refused = config(**{k: v for k, v in SECRETS.items() if k != name})
        assert refused.returncode != 0, f"{name} is missing and compose did not mind"
        assert ".env.example" in refused.stderr


def test_every_secret_is_in_the_example_and_empty_there() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    for name in SECRETS:
        assert f"{name}=" in lines
    Settings.from_env({}, dotenv=ROOT / ".env.example")  # the commands read the same file


@pytest.mark.parametrize("service", ["migrations", "worker", "check"])
def test_containers_start_commands_that_exist(compose: dict[str, Any], service: str) -> None:
    command = compose["services"][service]["command"]
    answer = subprocess.run(
        [Path(sys.executable).with_name("freshrec"), *command, "--help"],
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr


def test_the_containers_settings_are_settings(compose: dict[str, Any]) -> None:
    environment = dict(compose["services"]["worker"]["environment"])
    warehouse = environment["FRESHREC_WAREHOUSE"]
    environment["FRESHREC_WAREHOUSE"] = warehouse.replace(
        "${CLICKHOUSE_PASSWORD:?see .env.example}", "secret"
    )
    environment["FRESHREC_PARTITIONS"] = "12"
    settings = Settings.from_env(environment, dotenv=None)
    assert settings.unknown == ()
    assert settings.broker.servers == ("kafka:19092",)


def test_only_the_loopback_is_published_and_images_are_pinned(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} publishes {port}"
        tag = service["image"].partition(":")[2]
        assert tag and tag != "latest", f"{name}: {service['image']}"
        assert "no-new-privileges:true" in service["security_opt"]
        assert service["cap_drop"] == ["ALL"]


def test_the_image_installs_from_pins_and_does_not_run_as_root() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert "USER 10001:10001" in lines
    installs = [line for line in lines if "pip install" in line]
    assert installs and all("-c constraints.txt" in line for line in installs)
    assert any(line.startswith("HEALTHCHECK") for line in lines)
    assert lines[-2:] == ['ENTRYPOINT ["freshrec"]', 'CMD ["worker"]']
