"""The custom resource definitions that our manifests need, from the released sources of the projects that own them.

Our tree names the same releases for its users; here they come as Go modules, which is how this machine can have them.
"""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lab.binaries import BuildError

_DOWNLOAD_TIMEOUT_S = 600


@dataclass(frozen=True)
class Source:
    """A module at a version, with the hash that Go gives its content, and where in it the definitions lie.

    A prerequisite is there before ours comes, because its project installs it together with its controller; the others
    k8s/deploy.sh brings.
    """

    product: str
    module: str
    version: str
    sum: str
    folder: str
    is_prerequisite: bool = False


SOURCES = (
    Source(
        "Gateway API", "sigs.k8s.io/gateway-api", "v1.6.1",
        "h1:mock6phZbI6rvZerwrVNk7hVNymQgHo+6sJ81Ia7ftY=", "config/crd/standard",
    ),
    Source(
        "cert-manager", "github.com/cert-manager/cert-manager", "v1.21.2",
        "h1:UWgoYM+KLNtRlqmoWOKjKBOBUPVHeepQ6/ac3ERJW68=", "deploy/crds", True,
    ),
    Source(
        "Prometheus Operator", "github.com/prometheus-operator/prometheus-operator", "v0.85.0",
        "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=", "example/prometheus-operator-crd",
    ),
    Source(
        "KEDA", "github.com/kedacore/keda/v2", "v2.21.0",
        "h1:R6z2HZvstK4RLUMxroNACzBj74xGxt3kG59b5Xc+Xps=", "config/crd/bases", True,
    ),
)  # fmt: skip


def fetch_definitions(source: Source) -> list[Path]:
    """Return the manifest files of a source. Raises BuildError when they cannot be had or are not what we pinned."""
    command = ["go", "mod", "download", "-json", f"{source.module}@{source.version}"]
    # The hash is compared here, with ours, so that no database of hashes has to be reachable.
    environment = os.environ | {"GOSUMDB": "off", "GOWORK": "off", "GOFLAGS": ""}
    done = subprocess.run(
        command, cwd="/", env=environment, capture_output=True, text=True, timeout=_DOWNLOAD_TIMEOUT_S, check=False
    )
    if done.returncode:
        raise BuildError(f"{' '.join(command)} failed: {(done.stderr or done.stdout).strip()[-500:]}")
    module = json.loads(done.stdout)
    if module["Sum"] != source.sum:
        raise BuildError(f"{source.module}@{source.version} has the hash {module['Sum']} instead of {source.sum}")
    files = sorted((Path(module["Dir"]) / source.folder).glob("*.yaml"))
    if not files:
        raise BuildError(f"{source.module}@{source.version} has no definitions in {source.folder}")
    return files
