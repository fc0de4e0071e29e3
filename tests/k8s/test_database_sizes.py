"""The numbers of the database follow from those of the services: connections and memory add up, limits hold both."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from stockade.targets import NAMES

TREE = Path(__file__).parents[2] / "k8s"
DATABASE = TREE / "base" / "database"
MEMORY_PER_CONNECTION_MB = 3
OTHER_CONNECTIONS = 4 + 4 + 10 + 3
UNITS_MB = {"MB": 1, "GB": 1024, "Mi": 1, "Gi": 1024}


def test_connections_suffice_for_every_service_at_its_most() -> None:
    replicas = [_load(TREE / "base/services" / name / "hpa.yaml")["spec"]["maxReplicas"] for name in NAMES]
    wanted = sum(count + 1 for count in replicas) * _pool_size() + OTHER_CONNECTIONS
    assert wanted <= _settings(DATABASE / "settings/memory.conf")["max_connections"] < 1.2 * wanted


def test_connections_of_the_small_database_suffice_for_one_replica_of_each() -> None:
    wanted = 2 * len(NAMES) * _pool_size() + OTHER_CONNECTIONS
    assert wanted <= _settings(TREE / "components/small-database/memory.conf")["max_connections"] < 1.2 * wanted


@pytest.mark.parametrize(
    ("file", "limit_mb", "busy"),
    [("base/database/settings/memory.conf", 4096, 50), ("components/small-database/memory.conf", 1024, 20)],
)
def test_memory_at_its_most_leaves_room_below_the_limit(file: str, limit_mb: int, busy: int) -> None:
    settings = _settings(TREE / file)
    used_mb = (
        settings["shared_buffers"] * 17 // 16
        + settings["max_connections"] * MEMORY_PER_CONNECTION_MB
        + busy * settings["work_mem"]
        + settings["autovacuum_max_workers"] * settings["autovacuum_work_mem"]
        + settings["maintenance_work_mem"]
    )
    assert 0.7 * limit_mb < used_mb < 0.85 * limit_mb
    assert settings["shared_buffers"] == limit_mb // 4


def test_the_limits_are_those_that_the_settings_were_made_for() -> None:
    server = _server()
    assert server["resources"]["limits"]["memory"] == server["resources"]["requests"]["memory"] == "4Gi"
    patch = (TREE / "components/small-database/kustomization.yaml").read_text()
    assert "memory: 1Gi" in patch
    assert "value: 1Gi" in patch


def test_stopping_has_the_time_that_it_may_take() -> None:
    pod = _load(DATABASE / "statefulset.yaml")["spec"]["template"]["spec"]
    command = _server()["lifecycle"]["preStop"]["exec"]["command"]
    (limit_s,) = (int(part.removeprefix("--timeout=")) for part in command if part.startswith("--timeout="))
    assert limit_s < pod["terminationGracePeriodSeconds"]


def test_the_volume_holds_wal_and_a_restore_beside_the_present_cluster() -> None:
    (claim,) = _load(DATABASE / "statefulset.yaml")["spec"]["volumeClaimTemplates"]
    size_mb = _megabytes(claim["spec"]["resources"]["requests"]["storage"])
    wal_mb = _settings(DATABASE / "settings/postgresql.conf")["max_wal_size"]
    assert size_mb >= 2 * (wal_mb + 5 * 1024)


def _server() -> dict[str, Any]:
    pod = _load(DATABASE / "statefulset.yaml")["spec"]["template"]["spec"]
    return next(container for container in pod["containers"] if container["name"] == "server")


def _pool_size() -> int:
    deployment = _load(TREE / "components/service/deployment.yaml")
    (server,) = deployment["spec"]["template"]["spec"]["containers"]
    return next(int(one["value"]) for one in server["env"] if one["name"] == "STOCKADE_DATABASE_POOL_SIZE")


def _settings(file: Path) -> dict[str, int]:
    """The whole numbers of a settings file; sizes in megabytes."""
    found: dict[str, int] = {}
    for name, value in re.findall(r"^(\w+) = '?(\w+)'?$", file.read_text(), re.MULTILINE):
        if re.fullmatch(r"\d+(MB|GB)?", value):
            found[name] = _megabytes(value)
    return found


def _megabytes(text: str) -> int:
    match = re.fullmatch(r"(\d+)(\w*)", text)
    assert match, text
    return int(match[1]) * UNITS_MB.get(match[2], 1)


def _load(file: Path) -> Any:
    return yaml.safe_load(file.read_text())
