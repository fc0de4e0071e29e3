"""Every object is what its kind's schema says, for each supported release and each product whose kinds we use."""

import copy
import functools
import json
import subprocess
from typing import Any

import pytest

from k8s.tools.rendering import Manifest
from lab.binaries import BuildError
from lab.definitions import SOURCES, Source, fetch_definitions
from tests.k8s.schemas import (
    CUSTOM,
    RELEASES,
    Definitions,
    find_custom_errors,
    find_schema_errors,
    find_unknown_kinds,
    read_definitions,
    tighten,
)
from tests.k8s.trees import find, of_kind, render_all

OPTIONAL = (
    Source(
        "CloudNativePG", "github.com/cloudnative-pg/cloudnative-pg", "v1.30.1",
        "h1:d1jxp0jQi7/3zrEhsv9ycD+G5ssmkNvDvTmogaGccCw=", "config/crd/bases",
    ),
    Source(
        "Barman Cloud", "github.com/cloudnative-pg/plugin-barman-cloud", "v0.15.0",
        "h1:gNVytrzzYUE08wxLDrjfJqy1FPPSFkMe1OEr4s4pVI0=", "config/crd/bases",
    ),
)  # fmt: skip
"""What a component of ours needs and the lab does not install."""


def test_every_kind_is_known() -> None:
    assert find_unknown_kinds(_everything()) == []
    assert {source.product for source in (*SOURCES, *OPTIONAL)} >= CUSTOM.keys()


@pytest.mark.parametrize("release", RELEASES)
def test_built_in_kinds_are_what_this_release_knows(release: str) -> None:
    assert find_schema_errors(_everything(), releases=[release]) == []


@pytest.mark.timeout(700)  # The first time, Go downloads the modules that hold the definitions.
@pytest.mark.parametrize("product", CUSTOM)
def test_custom_resources_are_what_their_definitions_say(product: str) -> None:
    definitions = _definitions_of(product)
    own = [it for it in _everything() if it["apiVersion"].startswith(CUSTOM[product])]
    assert own
    assert find_custom_errors(own, product, definitions) == []
    # Whatever is added to the specification of any of them, the definitions notice it.
    for manifest in own:
        mistyped = copy.deepcopy(manifest)
        mistyped["spec"]["mistyped"] = True
        assert find_custom_errors([mistyped], product, definitions) != []


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize(
    "change",
    [{"specs": {}}, {"apiVersion": "v1"}, {"kind": "Deploymnt"}, {"spec": {"selector": {}}}],
    ids=["field", "version", "kind", "missing"],
)
def test_it_refuses_what_no_release_knows(release: str, change: dict[str, Any]) -> None:
    mistyped = find(render_all()["base"], "Deployment", "user-service") | change
    assert find_schema_errors([mistyped], releases=[release]) != []


def test_it_refuses_a_group_that_only_begins_like_a_known_one() -> None:
    policy = of_kind(render_all()["base"], "NetworkPolicy")[0]
    assert find_unknown_kinds([policy | {"apiVersion": "networking.k8s.com/v1"}]) != []


def test_a_definition_becomes_strict_where_it_describes_and_open_where_it_says_so() -> None:
    port, free, text = {"x-kubernetes-int-or-string": True}, {"type": "object"}, {"type": "string"}
    spec = {"type": "object", "properties": {"port": port, "free": free}}
    root = {"apiVersion": text, "kind": text, "metadata": {"type": "object"}, "spec": spec}
    definitions = {("cert-manager.io/v1", "Example"): tighten({"type": "object", "properties": root})}

    def findings(said: Any) -> list[str]:
        example = {"apiVersion": "cert-manager.io/v1", "kind": "Example", "metadata": {"name": "x"}, "spec": said}
        return find_custom_errors([example], "cert-manager", definitions)

    assert findings({"port": "http", "free": {"anything": 1}}) == []
    assert findings({"port": 80}) == []
    assert findings({"port": 8.5}) != []
    assert findings({"ports": 80}) != []


@functools.cache
def _everything() -> list[Manifest]:
    """The objects of all trees, each once: most trees share most of theirs."""
    unique = {json.dumps(manifest, sort_keys=True): manifest for tree in render_all().values() for manifest in tree}
    return list(unique.values())


def _definitions_of(product: str) -> Definitions:
    (source,) = [it for it in (*SOURCES, *OPTIONAL) if it.product == product]
    try:
        paths = fetch_definitions(source)
    except (BuildError, FileNotFoundError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"the definitions of {product} {source.version} cannot be had: {error}")
    return read_definitions(paths, {it["kind"] for it in _everything()})
