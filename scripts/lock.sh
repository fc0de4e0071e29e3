#!/bin/sh
# Resolves every requirement again and writes requirements/*.txt: hash-pinned, for each supported Python and platform.
#
# The resolution itself, uv.lock, stays out of the repository because it names the registry it came from; these files
# name none, so that they install from whichever registry the reader's pip is configured with.
set -eu
cd "$(dirname "$0")/.."

command -v uv >/dev/null || { echo "make lock: needs uv on the PATH (pip install uv)" >&2; exit 1; }

# export FILE WHAT OPTION... writes one file under a heading of our own instead of uv's, which quotes the command line.
export_lock() {
    file=requirements/$1 what=$2
    shift 2
    {
        echo "# $what"
        echo "# Written by \`make lock\` from pyproject.toml; not edited by hand."
        uv export --quiet --frozen --format requirements.txt --no-header --no-annotate --no-emit-project "$@"
    } >"$file.new"
    mv "$file.new" "$file"
}

mkdir -p requirements
uv lock --upgrade
export_lock runtime.txt "What a service needs to run; the container image installs exactly this."
export_lock local.txt "runtime.txt, PostgreSQL's binaries and the build backend: what \`make up\` needs." \
    --extra local --group build
export_lock dev.txt "local.txt and everything that tests and checks need." --extra local --group build --group dev
export_lock replay.txt "What \`make replay\` reads its data with; installed without dependencies." \
    --only-group replay --prune pandas
