#!/bin/sh
# Every check that needs no running server. All of them run even when one fails, so that one round shows everything.
set -u
cd "$(dirname "$0")/.." || exit 1

failed=
run() {
    name=$1
    shift
    echo "check: $name"
    "$@" || failed="$failed, $name"
}

run "lint" .venv/bin/ruff check --quiet .
run "formatting" .venv/bin/ruff format --check --quiet .
run "types" .venv/bin/basedpyright
run "import contracts" .venv/bin/lint-imports --no-logo

[ -z "$failed" ] || { echo "check: failed: ${failed#, }" >&2; exit 1; }
