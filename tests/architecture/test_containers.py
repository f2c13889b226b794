"""The compose stack gives its containers no rights that they do not need."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from lepton_client.policy import load_policy
from tests.architecture.sources import ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")


def runs_once(service: dict[str, Any]) -> bool:
    """True for a step that ends by itself."""
    return service.get("restart") == "no"


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_hardened(name: str) -> None:
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"]), "runs as root"
    assert any(mount.startswith("/tmp:") for mount in service["tmpfs"])
    assert "privileged" not in service
    assert "cap_add" not in service


@pytest.mark.parametrize("name", [name for name, service in SERVICES.items() if not runs_once(service)])
def test_every_lasting_service_says_whether_it_is_healthy(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"


def test_a_service_waits_for_steps_to_end_and_for_servers_to_be_healthy() -> None:
    wrong = [
        f"{name} waits for {other}: {wait['condition']}"
        for name, service in SERVICES.items()
        for other, wait in service.get("depends_on", {}).items()
        if wait["condition"] != ("service_completed_successfully" if runs_once(SERVICES[other]) else "service_healthy")
    ]
    assert wrong == []


def test_secrets_are_files_and_no_environment_holds_one() -> None:
    assert all(set(secret) == {"file"} for secret in COMPOSE["secrets"].values())
    named = [
        f"{name}: {key}"
        for name, service in SERVICES.items()
        for key in service.get("environment", {})
        if re.search(r"PASSWORD|SECRET|TOKEN|KEY", key) and not key.endswith("_FILE")
    ]
    assert named == []


def test_ports_are_published_on_the_loopback_interface_only() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_the_database_is_on_an_internal_network() -> None:
    assert COMPOSE["networks"]["database"]["internal"] is True
    assert SERVICES["postgres"]["networks"] == ["database"]


def test_the_image_runs_without_root_and_checks_its_health() -> None:
    final = DOCKERFILE.rpartition("\nFROM ")[2]
    users = re.findall(r"^USER (.+)$", final, re.MULTILINE)

    assert users == ["10001:10001"]
    assert re.search(r"^HEALTHCHECK .*", final, re.MULTILINE)
    assert all(
        ":latest" not in image and ":" in image for image in re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    )


def test_the_policy_that_the_page_shows_is_one_that_allows_the_example(tmp_path: Path) -> None:
    page = (ROOT / "deploy" / "README.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```toml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "policy.toml").write_text(shown, encoding="utf-8")
    policy = load_policy(tmp_path / "policy.toml")

    assert [population.mapping for population in policy.populations] == ["mapping.yaml"]
    assert policy.jobs.concepts == ("https://example.org/hospitals/*",)


def test_the_secrets_that_the_stack_mounts_are_the_ones_that_are_made() -> None:
    script = (ROOT / "deploy" / "make-secrets").read_text(encoding="utf-8")
    wanted = {secret["file"].removeprefix("./deploy/") for secret in COMPOSE["secrets"].values()}
    assert wanted == set(re.findall(r">(secrets/\w+)", script))
