"""Manifests against the schemas of their kinds: Kubernetes' own for each supported release, and definitions of custom ones.

A kind without a schema is a finding and not a warning. Unknown fields are findings too: the API server drops them without a
word, so that a mistyped limit is no limit. The expressions (CEL) in definitions are not evaluated here; a real API server does
that in tests/cluster.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml
from jsonschema import Draft202012Validator

from k8s.tools.rendering import Manifest
from tests.k8s.trees import Findings, title_of

RELEASES = ("1.35", "1.36", "1.37")
BUILT_IN = (
    "v1", "apps/v1", "autoscaling/v2", "batch/v1", "networking.k8s.io/v1", "policy/v1", "rbac.authorization.k8s.io/v1",
)  # fmt: skip
"""Compared in full, because the validator itself looks at the first word of a group only."""
CUSTOM = {
    "Gateway API": ("gateway.networking.k8s.io/",),
    "cert-manager": ("cert-manager.io/", "acme.cert-manager.io/"),
    "Prometheus Operator": ("monitoring.coreos.com/",),
    "KEDA": ("keda.sh/",),
    "CloudNativePG": ("postgresql.cnpg.io/",),
    "Barman Cloud": ("barmancloud.cnpg.io/",),
}
"""Products and the groups of their custom resources."""

Schema = dict[str, Any]
Definitions = Mapping[tuple[str, str], Schema]
"""Schemas by apiVersion and kind."""


def find_unknown_kinds(manifests: list[Manifest]) -> Findings:
    """Everything is of a group and version that we know of."""
    known = tuple(group for groups in CUSTOM.values() for group in groups)
    return [
        f"{title_of(it)} is of {it['apiVersion']}"
        for it in manifests
        if it["apiVersion"] not in BUILT_IN and not it["apiVersion"].startswith(known)
    ]


def find_schema_errors(manifests: Iterable[Manifest], *, releases: Iterable[str] = RELEASES) -> Findings:
    """What the named releases of Kubernetes do not know or would not take, in the objects of their own kinds."""
    findings: Findings = []
    for manifest in manifests:
        for release in releases if manifest["apiVersion"] in BUILT_IN else ():
            try:
                kubernetes_validate.validate(manifest, release, strict=True)
            except kubernetes_validate.ValidationError as error:
                findings.append(f"{title_of(manifest)}: {release}: {error.message[:200]}")
            except kubernetes_validate.SchemaNotFoundError:
                findings.append(f"{title_of(manifest)}: {release} knows no {manifest['kind']}")
    return findings


def find_custom_errors(manifests: Iterable[Manifest], product: str, definitions: Definitions) -> Findings:
    """The same for the custom resources of one product."""
    findings: Findings = []
    for manifest in manifests:
        if not manifest["apiVersion"].startswith(CUSTOM[product]):
            continue
        schema = definitions.get((manifest["apiVersion"], manifest["kind"]))
        if schema is None:
            findings.append(
                f"{title_of(manifest)}: {product} defines no {manifest['kind']} of {manifest['apiVersion']}"
            )
        else:
            errors = Draft202012Validator(schema).iter_errors(manifest)
            findings += [f"{title_of(manifest)}: {error.json_path}: {error.message[:200]}" for error in errors]
    return findings


def read_definitions(paths: Iterable[Path], kinds: set[str]) -> Definitions:
    """The strict schemas of those kinds in files of CustomResourceDefinitions, in every version that is served."""
    definitions: dict[tuple[str, str], Schema] = {}
    for path in paths:
        text = path.read_text()
        # These files are large, and most of them define kinds that nobody here uses.
        if not any(f"kind: {kind}\n" in text for kind in kinds):
            continue
        for document in yaml.load_all(text, yaml.CSafeLoader):
            if document and document["kind"] == "CustomResourceDefinition":
                spec = document["spec"]
                for version in (it for it in spec["versions"] if it["served"]):
                    schema = version["schema"]["openAPIV3Schema"]
                    definitions[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = tighten(schema)
    return definitions


def tighten(schema: Schema) -> Schema:
    """A definition's schema as JSON Schema in which what is not described is refused, as the API server would drop it."""
    tight = {
        key: value for key, value in schema.items() if key not in ("nullable", "format", "x-kubernetes-validations")
    }
    if schema.get("x-kubernetes-int-or-string"):
        tight["type"] = ["integer", "string"]
    elif schema.get("nullable") and "type" in schema:
        tight["type"] = [schema["type"], "null"]
    if "properties" in schema:
        tight["properties"] = {
            name: inner if name == "metadata" and not inner.get("properties") else tighten(inner)
            for name, inner in schema["properties"].items()
        }
        if "additionalProperties" not in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            tight["additionalProperties"] = False
    if isinstance(schema.get("additionalProperties"), dict):
        tight["additionalProperties"] = tighten(schema["additionalProperties"])
    if isinstance(schema.get("items"), dict):
        tight["items"] = tighten(schema["items"])
    return tight
