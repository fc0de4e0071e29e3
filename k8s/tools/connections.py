"""Reads connections.yaml, and what the NetworkPolicies of rendered manifests really allow, in one form to compare.

A connection is (from, to, protocol, port), and both sides have to allow it. They are judged apart: a side that allows too
much is a mistake even while the other one still refuses. A policy speaks for a party when its selector matches the party's
labels; a party that no policy speaks for is open, as the API says. Namespaces are matched by the label that Kubernetes
gives each of them, which is the only one that we use.
"""

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from k8s.tools.rendering import TREE, Manifest, pod_of, read_yaml

FILE = TREE / "connections.yaml"
EVERY_POD = "every-pod"
STRANGER = "stranger in "
"""Begins the name of a pod that connections.yaml does not know. There is one in every namespace that it names; and in the
namespace `default` one for each party that wears its labels. Nobody may talk to them, and what they may do themselves is
what every pod of their namespace may: resolve names."""
UNLISTED_PORT = 9
"""A port that nobody has. A connection to it shows a rule that forgot to name its ports."""

Way = Literal["Ingress", "Egress"]
_NAMESPACE_LABEL = "kubernetes.io/metadata.name"


class Connection(NamedTuple):
    source: str
    target: str
    protocol: str
    port: int


@dataclass(frozen=True)
class Party:
    """A pod of ours or of others (namespace and labels), or an address that stands for what is no pod."""

    name: str
    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    address: str = ""
    ours: bool = True


@dataclass(frozen=True)
class Matrix:
    parties: dict[str, Party]
    connections: set[Connection]

    def of_side(self, way: Way) -> set[Connection]:
        """The connections that a policy of ours has to allow: those whose target (Ingress) or source (Egress) is ours."""
        return {
            connection
            for connection in self.connections
            if self.parties[connection.target if way == "Ingress" else connection.source].ours
        }


def read_matrix(manifests: Iterable[Manifest], *, components: Iterable[str] = (), path: Path = FILE) -> Matrix:
    """What connections.yaml allows among those parties that the manifests bring about, or others do.

    A connection of a component counts only when that component is named.
    """
    (document,) = read_yaml(path.read_text())
    listed = {name: _read_party(name, entry) for name, entry in document["parties"].items()}
    pods = find_pods(manifests)
    parties = {name: party for name, party in listed.items() if not party.ours or _has_pods(party, pods)}
    parties |= _make_strangers(parties)
    connections: set[Connection] = set()
    for entry in document["connections"]:
        if unknown := {entry["from"], entry["to"]} - {EVERY_POD, *listed}:
            raise ValueError(f"connections.yaml has a connection of {', '.join(unknown)}, which is no party")
        if entry.get("component") in (None, *components):
            connections |= _spread(entry, parties)
    return Matrix(parties, connections)


def find_pods(manifests: Iterable[Manifest]) -> list[tuple[str, Mapping[str, str]]]:
    """Namespace and labels of the pods that the manifests bring about, those of CloudNativePG's Cluster included."""
    found: list[tuple[str, Mapping[str, str]]] = []
    for manifest in manifests:
        namespace = manifest["metadata"].get("namespace", "")
        if pod := pod_of(manifest):
            found.append((namespace, pod["metadata"].get("labels", {})))
        elif manifest["apiVersion"].startswith("postgresql.cnpg.io/") and manifest["kind"] == "Cluster":
            inherited = manifest["spec"].get("inheritedMetadata", {}).get("labels", {})
            found.append((namespace, {**inherited, "cnpg.io/cluster": manifest["metadata"]["name"]}))
    return found


def find_allowed(manifests: Iterable[Manifest], matrix: Matrix, way: Way) -> set[Connection]:
    """Every connection that the policies of one side allow, on any port of the matrix and on an unlisted one.

    Only the side of parties of ours is judged: what others allow is their own business.
    """
    policies = [manifest for manifest in manifests if manifest["kind"] == "NetworkPolicy"]
    doors = {(protocol, port) for *_, protocol, port in matrix.connections} | {("TCP", UNLISTED_PORT)}
    allowed: set[Connection] = set()
    for party in matrix.parties.values():
        if not party.ours:
            continue
        rules = _rules_of(policies, party, way)
        for peer in matrix.parties.values():
            opened = doors if rules is None else _open_doors(rules, way, party, peer, doors)
            names = (peer.name, party.name) if way == "Ingress" else (party.name, peer.name)
            allowed |= {Connection(*names, *door) for door in opened if peer is not party}
    return allowed


def _read_party(name: str, entry: Mapping[str, Any]) -> Party:
    return Party(
        name, entry.get("namespace", ""), entry.get("labels", {}), entry.get("address", ""), ours="made_by" not in entry
    )


def _has_pods(party: Party, pods: list[tuple[str, Mapping[str, str]]]) -> bool:
    return any(namespace == party.namespace and party.labels.items() <= labels.items() for namespace, labels in pods)


def _spread(entry: Mapping[str, Any], parties: Mapping[str, Party]) -> set[Connection]:
    sources = [name for name, party in parties.items() if party.ours] if entry["from"] == EVERY_POD else [entry["from"]]
    return {
        Connection(source, entry["to"], protocol, port)
        for source in sources
        if source in parties and entry["to"] in parties
        for protocol in entry.get("protocols", ["TCP"])
        for port in entry["ports"]
    }


def _make_strangers(parties: Mapping[str, Party]) -> dict[str, Party]:
    namespaces = {party.namespace: False for party in parties.values() if party.namespace} | {"default": False}
    namespaces |= {party.namespace: True for party in parties.values() if party.ours}
    strangers = [Party(STRANGER + name, name, {"app": "stranger"}, ours=ours) for name, ours in namespaces.items()]
    strangers += [
        Party(f"{STRANGER}default dressed as {party.name}", "default", party.labels, ours=False)
        for party in parties.values()
        if party.labels
    ]
    return {stranger.name: stranger for stranger in strangers}


def _rules_of(policies: list[Manifest], party: Party, way: Way) -> list[Mapping[str, Any]] | None:
    """The rules of one way of all policies that speak for a party, or None when none does and everything is open."""
    own = [policy["spec"] for policy in policies if _speaks_for(policy, party) and way in policy["spec"]["policyTypes"]]
    return [rule for spec in own for rule in spec.get(way.lower(), [])] if own else None


def _open_doors(
    rules: list[Mapping[str, Any]], way: Way, party: Party, peer: Party, doors: set[tuple[str, int]]
) -> set[tuple[str, int]]:
    key = "from" if way == "Ingress" else "to"
    reaching = [rule for rule in rules if _reaches(rule.get(key), peer, party.namespace)]
    return {door for door in doors if any(_opens(rule.get("ports"), *door) for rule in reaching)}


def _speaks_for(policy: Manifest, party: Party) -> bool:
    return policy["metadata"]["namespace"] == party.namespace and _selects(policy["spec"]["podSelector"], party.labels)


def _opens(ports: list[Mapping[str, Any]] | None, protocol: str, port: int) -> bool:
    if ports is None:
        return True
    for entry in ports:
        low = entry.get("port")
        assert low is None or isinstance(low, int), "policies here name ports by number"
        high = entry.get("endPort", low)
        if entry.get("protocol", "TCP") == protocol and (low is None or low <= port <= high):
            return True
    return False


def _reaches(peers: list[Mapping[str, Any]] | None, peer: Party, own_namespace: str) -> bool:
    if peers is None:
        return True
    return any(_is_peer(entry, peer, own_namespace) for entry in peers)


def _is_peer(entry: Mapping[str, Any], peer: Party, own_namespace: str) -> bool:
    if "ipBlock" in entry:
        # Pods have addresses too, but which is unknown here, and plugins differ in whether a block covers pods.
        block = entry["ipBlock"]
        within = [ipaddress.ip_network(cidr) for cidr in (block["cidr"], *block.get("except", []))]
        address = ipaddress.ip_address(peer.address) if peer.address else None
        return address is not None and address in within[0] and not any(address in cut for cut in within[1:])
    if peer.address:
        return False
    if "namespaceSelector" in entry:
        if not _selects(entry["namespaceSelector"], {_NAMESPACE_LABEL: peer.namespace}):
            return False
    elif peer.namespace != own_namespace:
        return False
    return _selects(entry.get("podSelector", {}), peer.labels)


def _selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    assert set(selector) <= {"matchLabels"}, "selectors here are written as matchLabels"
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
