"""The command line of the image: `python -m image build`, `unpack` and `lock`, which the Makefile calls.

Exit codes: 0 done, 1 it failed, 2 wrong usage.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

from cyclopts import App, CycloptsError, Parameter

from image.building import LOCK, build_image, unpack_image
from image.debian import Archive, DebianError, write_lock
from image.rootfs import RootError
from image.wheels import WheelError

app = App(name="image", help="Build the container image without a registry.")

Mirror = Annotated[str | None, Parameter(help="Address of a Debian archive. Default: the one that this machine uses.")]


@app.command
def build(
    *,
    output: Annotated[Path, Parameter(help="Directory for the archive, its digest and its bill.")] = Path(
        "build/image"
    ),
    revision: Annotated[str | None, Parameter(help="The commit to name in the labels, for a release.")] = None,
    exact: Annotated[bool, Parameter(negative="", help="Fail unless every Debian package is as recorded.")] = False,
    mirror: Mirror = None,
) -> None:
    """Write stockade-VERSION.oci.tar, .digest and .cdx.json."""
    built = build_image(output, cache=_cache(), mirror=mirror, revision=revision, exact=exact, say=_say)
    _say(f"{built.archive}: {built.size / 1e6:.0f} MB unpacked, {built.digest}")


@app.command
def unpack(root: Annotated[Path, Parameter(help="A directory to make.")], *, mirror: Mirror = None) -> None:
    """Write the image's files to a directory instead: what the Containerfile copies."""
    unpack_image(root, cache=_cache(), mirror=mirror, say=_say)


@app.command
def lock(*, mirror: Mirror = None) -> None:
    """Record the newest version of every Debian package in image/packages.lock."""
    newest = Archive(_cache() / "debian", mirror=mirror, index_age_max_s=0).find_newest()
    write_lock(LOCK, newest.values())
    _say(f"{LOCK.name} records {len(newest)} packages")


def main() -> None:
    try:
        app(exit_on_error=False, print_error=False)
    except CycloptsError as error:
        _fail(2, str(error))
    except (DebianError, WheelError, RootError, OSError) as error:
        _fail(1, str(error))
    except KeyboardInterrupt:
        _fail(1, "interrupted")


def _cache() -> Path:
    """Packages and wheels that were fetched: outside the tree, because they are worth keeping when it is cleaned."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stockade/image"


def _say(line: str) -> None:
    print(f"image: {line}", flush=True)


def _fail(code: int, line: str) -> NoReturn:
    print(f"image: {' '.join(line.split())}", file=sys.stderr)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
