#!/bin/sh
# Asks the container registries for the digest of every image in images.lock, and writes it there and into the manifests.
# For a machine that reaches them, with crane or skopeo. Look at `git diff` before you commit what it changed.
set -eu
cd "$(dirname "$0")/.."

python=.venv/bin/python
[ -x "$python" ] || { echo "images-resolve: no .venv here; run \`make install-dev\` first" >&2; exit 1; }

# The digest of the index, which holds every architecture; that of one architecture would exclude the nodes of the others.
if command -v crane >/dev/null; then
    resolve() { timeout 60 crane digest "$1"; }
elif command -v skopeo >/dev/null; then
    resolve() {
        # By way of a file: in a pipe a failure would be the digest of nothing.
        timeout 60 skopeo inspect --raw "docker://$1" >"$scratch" && echo "sha256:$(sha256sum <"$scratch" | cut -d ' ' -f 1)"
    }
    scratch=$(mktemp)
    trap 'rm -f "$scratch"' EXIT
else
    echo "images-resolve: needs crane or skopeo on the PATH" >&2
    exit 1
fi

failed=
for image in $("$python" -m k8s.tools.images list); do
    if digest=$(resolve "$image"); then
        "$python" -m k8s.tools.images record "$image" "$digest"
    else
        failed="$failed $image"
    fi
done
[ -z "$failed" ] || { echo "images-resolve: no answer for$failed; the others are recorded" >&2; exit 1; }
"$python" -m k8s.tools.images check --release
