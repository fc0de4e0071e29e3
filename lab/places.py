"""Where the lab keeps things: nothing of it lies in the tree, so that cleaning either does not touch the other."""

import os
from pathlib import Path

PROJECT = Path(__file__).parents[1]
MODULES = PROJECT / "lab/modules"
CONFIG = PROJECT / "lab/config"

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stockade-lab"
"""What is worth keeping between runs: binaries by version."""

STATE = CACHE / "cluster"
"""What one cluster needs while it runs: keys, data, logs, process ids. `down` removes it."""
