"""The running cluster of the lab, and everything of k8s/base on it, applied once for all tests."""

import pytest

from lab.cluster import Cluster, ClusterError, Programs
from lab.kubectl import Kubectl
from lab.machine import find_obstacles
from tests.cluster.deployment import Deployed, deploy


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    obstacles = find_obstacles()
    if obstacles:
        pytest.skip(f"no cluster can run here: {'; '.join(obstacles)}")
    try:
        return Cluster.attach(Programs.prepare(print))
    except ClusterError as error:
        pytest.fail(str(error))


@pytest.fixture(scope="session")
def kubectl(cluster: Cluster) -> Kubectl:
    """As the administrator of the cluster."""
    return cluster.kubectl


@pytest.fixture(scope="session")
def deployed(cluster: Cluster) -> Deployed:
    """Everything, applied to the empty cluster and running; then applied once more."""
    return deploy(cluster)
