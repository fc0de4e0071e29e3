"""What the programs of a real node read: containerd's, the kubelet's and kube-proxy's settings, and the pods' network."""

import shutil
from pathlib import Path

from lab.control_plane import POD_ADDRESSES
from lab.network import NAMESPACE

PAUSE_IMAGE = "stockade.invalid/lab/pause:1"
DNS_ADDRESS = "10.96.0.10"


def write_containerd(state: Path, plugins: Path) -> str:
    """containerd's, in its own directories below `state`, so that a second one on the machine is not in its way."""
    return f"""version = 3
root = "{state}/containerd"
state = "{state}/run"
oom_score = 0
disabled_plugins = ["io.containerd.nri.v1.nri"]
[grpc]
  address = "{state}/containerd.sock"
[ttrpc]
  address = "{state}/containerd.sock.ttrpc"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = "{PAUSE_IMAGE}"
[plugins.'io.containerd.cri.v1.runtime']
  # Without the capability to raise priorities, which not every machine gives to its root.
  restrict_oom_score_adj = true
  disable_apparmor = true
  # Networks of pods lie with the rest of the node, so that they go with it.
  netns_mounts_under_state_dir = true
  [plugins.'io.containerd.cri.v1.runtime'.containerd]
    default_runtime_name = "runc"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
        BinaryName = "{shutil.which("runc") or "runc"}"
        SystemdCgroup = false
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["{plugins}"]
    conf_dir = "{state}/network.d"
"""


def make_kubelet(name: str, address: str, *, state: Path, keys: Path, control_group: str) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        # Machines that still have the first version of control groups are no reason to refuse.
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{control_group}",
        "containerRuntimeEndpoint": f"unix://{state}/containerd.sock",
        "podLogsDir": f"{state}/logs",
        "volumePluginDir": f"{state}/volume-plugins",
        "resolvConf": "/dev/null",
        "clusterDomain": "cluster.local",
        "clusterDNS": [DNS_ADDRESS],
        "oomScoreAdj": 0,
        "address": address,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{keys}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{keys / name}.crt",
        "tlsPrivateKeyFile": f"{keys / name}.key",
        "seccompDefault": True,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        # Images cannot be fetched again here, so none may be cleaned away.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "readOnlyPort": 0,
    }


def make_kube_proxy(name: str, address: str, *, keys: Path) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": f"{keys}/kube-proxy.conf"},
        "hostnameOverride": name,
        "clusterCIDR": POD_ADDRESSES,
        "oomScoreAdj": 0,
        # These belong to the machine and cannot be set from a namespace.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "nodePortAddresses": [f"{address}/32"],
    }


def make_pod_network(pod_addresses: str, *, state: Path) -> dict[str, object]:
    """Every pod on a wire of its own to the node, so that all its packets are forwarded and can be refused."""
    addresses = {
        "type": "host-local",
        "dataDir": f"{state}/addresses",
        "ranges": [[{"subnet": pod_addresses}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    wire = {"type": "ptp", "ipMasq": False, "mtu": 1450, "ipam": addresses}
    return {
        "cniVersion": "1.0.0",
        "name": NAMESPACE,
        "plugins": [wire, {"type": "portmap", "capabilities": {"portMappings": True}}],
    }
