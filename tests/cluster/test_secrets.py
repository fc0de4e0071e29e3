"""No value of a Secret lies in clear anywhere that the control plane writes."""

import base64
from pathlib import Path

import pytest

from lab.cluster import Cluster
from lab.kubectl import Kubectl
from tests.cluster.deployment import Deployed


def test_etcd_holds_no_secret_in_clear(cluster: Cluster, deployed: Deployed) -> None:
    data = _read_files(cluster.control_plane.data)
    assert len(deployed.secret_values) > 14
    assert [value for value in deployed.secret_values if value.encode() in data] == []
    assert b"k8s:enc:secretbox:v1:key-" in data


def test_etcd_holds_a_config_map_in_clear(cluster: Cluster, kubectl: Kubectl, deployed: Deployed) -> None:
    """The test above would pass for ever if it looked in the wrong place: what is not encrypted has to be found."""
    kubectl("create", "configmap", "in-clear", "--from-literal=value=found-in-clear-text")
    try:
        assert b"found-in-clear-text" in _read_files(cluster.control_plane.data)
    finally:
        kubectl("delete", "configmap", "in-clear")


@pytest.mark.parametrize("encode", ["plain", "base64"])
def test_no_log_holds_a_secret(cluster: Cluster, deployed: Deployed, encode: str) -> None:
    text = cluster.control_plane.audit_log.read_bytes() + _read_logs(cluster)
    assert b"postgres-secret" in text
    values = [_encode(value, encode) for value in deployed.secret_values]
    assert [value for value in values if value in text] == []


def _encode(value: str, encoding: str) -> bytes:
    return value.encode() if encoding == "plain" else base64.b64encode(value.encode())


def _read_files(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file())


def _read_logs(cluster: Cluster) -> bytes:
    return b"".join(path.read_bytes() for path in cluster.processes.directory.glob("*.log"))
