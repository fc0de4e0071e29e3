"""The lab's own network namespace, with one wire to the machine so that a person's kubectl reaches it.

Ports inside are nobody else's, and what the cluster's programs do to routes and packet filters ends with it.
"""

import json
import subprocess
from pathlib import Path

from lab.waiting import wait_until

NAMESPACE = "stockade-lab"
SECOND_NAMESPACE = "stockade-lab-b"
ADDRESS = "10.99.0.1"
"""Where the control plane and the simulated nodes listen, from inside and from this machine."""

NODE_ADDRESSES = {"node-a": ADDRESS, "node-b": "10.99.1.2"}
"""The nodes that run containers. The first shares the network of the control plane, the second has one of its own."""

_HOST_ADDRESS = "10.99.0.254"
_PREFIX = 24
_WIRE_INSIDE = "lab0"
_WIRE_OUTSIDE = "stockade-lab"
_TIMEOUT_S = 10


class NetworkError(Exception):
    """The namespace could not be made; the text is what `ip` said."""


def create_network() -> None:
    """Make the namespace. Raises NetworkError, also when this machine already uses the lab's addresses."""
    for route in json.loads(_ip("-json", "route", "show", "root", f"{ADDRESS}/{_PREFIX}")):
        raise NetworkError(f"this machine already has a route to {route['dst']}, which the lab would take")
    _ip("netns", "add", NAMESPACE)
    _ip("link", "add", _WIRE_OUTSIDE, "type", "veth", "peer", "name", _WIRE_INSIDE, "netns", NAMESPACE)
    _ip("address", "add", f"{_HOST_ADDRESS}/{_PREFIX}", "dev", _WIRE_OUTSIDE)
    _ip("link", "set", _WIRE_OUTSIDE, "up")
    _ip("-n", NAMESPACE, "link", "set", "lo", "up")
    _ip("-n", NAMESPACE, "address", "add", f"{ADDRESS}/{_PREFIX}", "dev", _WIRE_INSIDE)
    _ip("-n", NAMESPACE, "link", "set", _WIRE_INSIDE, "up")
    # The API server insists on a default route to choose its address by. The machine forwards nothing from here.
    _ip("-n", NAMESPACE, "route", "add", "default", "via", _HOST_ADDRESS)


def join_second_network() -> None:
    """Make the second node's namespace with a wire to the first, and let both forward what pods send."""
    second, gateway = NODE_ADDRESSES["node-b"], "10.99.1.1"
    _ip("netns", "add", SECOND_NAMESPACE)
    _ip("-n", NAMESPACE, "link", "add", "lab1", "type", "veth", "peer", "name", "lab0", "netns", SECOND_NAMESPACE)
    _ip("-n", NAMESPACE, "address", "add", f"{gateway}/{_PREFIX}", "dev", "lab1")
    _ip("-n", NAMESPACE, "link", "set", "lab1", "up")
    _ip("-n", SECOND_NAMESPACE, "link", "set", "lo", "up")
    _ip("-n", SECOND_NAMESPACE, "address", "add", f"{second}/{_PREFIX}", "dev", "lab0")
    _ip("-n", SECOND_NAMESPACE, "link", "set", "lab0", "up")
    _ip("-n", SECOND_NAMESPACE, "route", "add", "default", "via", gateway)
    for namespace in (NAMESPACE, SECOND_NAMESPACE):
        forward = ["sysctl", "-qw", "net.ipv4.ip_forward=1"]
        subprocess.run(enter_network(forward, namespace), check=True, timeout=_TIMEOUT_S)


def route_to_second(addresses: str) -> None:
    """Tell the first node that these pods are on the second, which sends everything to the first anyway."""
    _ip("-n", NAMESPACE, "route", "replace", addresses, "via", NODE_ADDRESSES["node-b"])


def remove_network() -> None:
    """Remove the namespaces that are there. Their wires go with them, both ends."""
    for namespace in (SECOND_NAMESPACE, NAMESPACE):
        if (Path("/run/netns") / namespace).exists():
            _ip("netns", "delete", namespace)
    # The kernel frees a namespace, and what is in it, some time after its name is gone.
    device = Path("/sys/class/net") / _WIRE_OUTSIDE
    wait_until(lambda: not device.exists(), f"end of {device.name}", _TIMEOUT_S)


def has_network() -> bool:
    return (Path("/run/netns") / NAMESPACE).exists()


def enter_network(command: list[str], namespace: str = NAMESPACE) -> list[str]:
    """The same command inside the namespace.

    By nsenter and not `ip netns exec`, which mounts /sys anew and so hides the control groups.
    """
    return ["nsenter", f"--net=/run/netns/{namespace}", "--", *command]


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    if done.returncode:
        raise NetworkError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout or "[]"
