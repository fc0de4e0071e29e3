#!/usr/bin/env bash
# install.sh local|dev: makes .venv if there is none and installs requirements/<name>.txt and Stockade itself into it.
#
# Every file that pip may install is named by its hash, the build backend included, so nothing is resolved here.
set -euo pipefail
cd "$(dirname "$0")/.."

# Settings of the caller that would send pip or Python elsewhere than to .venv.
unset PYTHONHOME PYTHONPATH
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH="$PWD/.venv/bin:$PATH"

if ! .venv/bin/python -c 'import pip' 2>/dev/null; then
    python=$(scripts/find_python.sh)
    echo "install: making .venv with $("$python" --version)"
    "$python" -m venv --clear .venv
fi

# Tells every tenth file that pip fetches: on a slow line that is the difference between slow and stuck.
show_progress() {
    awk -v total="$1" '/^ *Collecting / && ++seen % 10 == 0 { printf "install: %d of at most %d\n", seen, total; fflush() }'
}

requirements=requirements/$1.txt
total=$(grep -c '==' "$requirements")
echo "install: $total packages of $requirements, each checked by its hash"
.venv/bin/python -m pip install --require-hashes --progress-bar off -r "$requirements" | show_progress "$total"
.venv/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
