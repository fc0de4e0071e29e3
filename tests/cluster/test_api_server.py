"""Who gets in at the API server, by the files that k8s/cluster gives for it."""

import ssl
import urllib.error
import urllib.request

import pytest

from lab.cluster import Cluster
from lab.network import ADDRESS


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz"])
def test_a_load_balancer_may_ask_for_its_health_without_a_name(cluster: Cluster, path: str) -> None:
    assert _ask(cluster, path) == 200


@pytest.mark.parametrize("path", ["/api", "/api/v1/namespaces", "/version", "/metrics", "/openapi/v2", "/livez/ping"])
def test_nobody_asks_anything_else_without_a_name(cluster: Cluster, path: str) -> None:
    assert _ask(cluster, path) == 401


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_old_tls_is_refused(cluster: Cluster) -> None:
    old = _trust(cluster)
    old.set_ciphers("DEFAULT:@SECLEVEL=0")  # Or OpenSSL refuses it on our side, and the server is never asked.
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(urllib.error.URLError, match="alert protocol version"):
        urllib.request.urlopen(f"https://{ADDRESS}:6443/livez", context=old, timeout=10)


def _ask(cluster: Cluster, path: str) -> int:
    try:
        with urllib.request.urlopen(f"https://{ADDRESS}:6443{path}", context=_trust(cluster), timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def _trust(cluster: Cluster) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(cluster.control_plane.keys / "ca.crt"))
