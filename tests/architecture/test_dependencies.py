"""What the program imports is what pyproject.toml asks for, and what the lists pin."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

from tests.architecture.tree import ROOT

RESEARCH = ROOT / "src/outlast/rooms/watch/research"
# A Raspberry Pi runs the node: none of these may be what it needs.
TOO_HEAVY = {
    "chdb-core-lite",
    "clickhouse-connect",
    "duckdb",
    "ibis-framework",
    "pandas",
    "polars",
    "pyarrow",
    "scipy",
    "statsmodels",
}

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def plain(requirement: str) -> str:
    """Return the distribution's name in a requirement, as lists spell it: `python-multipart`."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\s<>=!~;\[]", requirement)[0]).lower()


def pinned(lock: str) -> dict[str, set[str]]:
    """Return name -> versions of a list; a name can have one version for each Python."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==(\S+)", (ROOT / lock).read_text(), re.MULTILINE):
        found.setdefault(plain(name), set()).add(version)
    return found


def imported(source: Path) -> Iterator[str]:
    """Yield the top-level names that the code under `source` imports, deferred imports included."""
    for path in [source] if source.is_file() else source.glob("**/*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            match node:
                case ast.Import(names=names):
                    yield from (name.name.split(".")[0] for name in names)
                case ast.ImportFrom(module=str(module), level=0):
                    yield module.split(".")[0]


def test_the_program_imports_nothing_that_it_does_not_ask_for() -> None:
    foreign = set(imported(ROOT / "src")) - sys.stdlib_module_names - {"outlast"}
    providers = packages_distributions()
    extras = PROJECT["project"]["optional-dependencies"].values()
    asked = {plain(one) for one in PROJECT["project"]["dependencies"]}
    asked |= {plain(one) for extra in extras for one in extra}
    unasked = {name for name in foreign if not asked & {plain(one) for one in providers.get(name, ())}}
    assert unasked == set()


def test_what_is_asked_for_is_pinned() -> None:
    groups = PROJECT["dependency-groups"]
    run, dev, bench = map(pinned, [f"requirements{part}.lock" for part in ("", "-dev", "-bench")])
    assert {plain(one) for one in PROJECT["project"]["dependencies"] + groups["build"]} <= set(run)
    assert {plain(one) for one in groups["dev"]} <= set(dev)
    assert {plain(one) for one in groups["bench"]} <= set(bench)
    assert {plain(one) for one in PROJECT["project"]["optional-dependencies"]["research"]} <= set(dev)


def test_the_node_needs_nothing_that_is_too_heavy_for_it() -> None:
    assert TOO_HEAVY & set(pinned("requirements.lock")) == set()
    assert TOO_HEAVY & {plain(one) for one in PROJECT["project"]["dependencies"]} == set()


def test_what_is_heavy_is_imported_by_the_researchers_part_alone() -> None:
    providers = packages_distributions()
    heavy = {name for name, owners in providers.items() if TOO_HEAVY & {plain(owner) for owner in owners}}
    assert {"ibis", "pyarrow"} <= set(imported(RESEARCH))
    assert {"ibis", "pandas", "pyarrow"} <= heavy
    for path in (ROOT / "src").glob("outlast/**/*.py"):
        if RESEARCH not in path.parents:
            assert heavy & set(imported(path)) == set(), path


def test_nothing_of_the_program_imports_the_researchers_part() -> None:
    for path in (ROOT / "src").glob("outlast/**/*.py"):
        if RESEARCH not in path.parents:
            assert "watch.research" not in path.read_text(encoding="utf-8"), path


def test_the_developers_list_holds_the_programs_list_at_the_same_versions() -> None:
    assert pinned("requirements.lock").items() <= pinned("requirements-dev.lock").items()


def test_every_pin_has_a_hash() -> None:
    for lock in ("requirements.lock", "requirements-dev.lock", "requirements-bench.lock"):
        for entry in re.split(r"\n(?=\S)", (ROOT / lock).read_text()):
            assert entry.startswith("#") or "--hash=sha256:" in entry, entry
