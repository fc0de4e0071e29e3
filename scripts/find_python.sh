#!/bin/sh
# Prints the first Python >= 3.11 that can make a virtual environment; PYTHON=/path/to/python names one outright.
set -eu

found_without_venv=
for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
    # A name on the PATH proves nothing: version managers leave shims behind that only print an error.
    "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
    if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
        exec "$candidate" -c 'import sys; print(sys.executable)'
    fi
    found_without_venv=$candidate
done

if [ -n "$found_without_venv" ]; then
    echo "Stockade needs Python's venv module, which $found_without_venv lacks:" \
        "install your system's python3-venv package, then run make again." >&2
else
    echo "Stockade needs Python 3.11 or newer and found none: install it, or name one with make PYTHON=/path/to/python." >&2
fi
exit 1
