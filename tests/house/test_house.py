"""The house keeps its own rules: small checks of the source itself."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from metering.settings import Settings

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / "metering").rglob("*.py"), *(ROOT / "reports").rglob("*.py")])
RULES = sorted((ROOT / "metering" / "rules").rglob("*.py"))
LEDGER_TABLES = ("ledger_entry", "ledger_batch", "ledger_identity", "ledger_series", "ledger_seal")


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def calls(path: Path) -> Iterator[tuple[ast.Call, str]]:
    """Calls in a file with the name called: `now` of `datetime.now()`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            target = node.func
            yield node, target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "")


@pytest.mark.parametrize("path", RULES, ids=named)
def test_rules_use_no_float_and_no_clock(path: Path) -> None:
    tree = ast.parse(path.read_text())
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    constants = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    assert "float" not in names
    assert not [value for value in constants if isinstance(value, float)]
    assert not {name for _call, name in calls(path)} & {"now", "today", "utcnow", "time_ns", "monotonic", "open"}


@pytest.mark.parametrize("path", RULES, ids=named)
def test_rules_import_the_standard_library_only(path: Path) -> None:
    import sys

    for node in ast.walk(ast.parse(path.read_text())):
        modules = (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
        for module in modules:
            root = module.partition(".")[0]
            assert root in sys.stdlib_module_names or module.startswith("metering.rules"), module


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_only_the_database_module_commits(path: Path) -> None:
    # A transaction's takes no argument; the commit of a reservation does.
    committing = [name for call, name in calls(path) if name in {"commit", "rollback"} and not call.args]
    assert not committing or path.name == "database.py"


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_no_statement_changes_rows_of_the_ledger(path: Path) -> None:
    for call, name in calls(path):
        if name in {"update", "delete"} and isinstance(call.func, ast.Attribute):
            assert getattr(call.func.value, "id", "") not in LEDGER_TABLES
    texts = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
    for text in texts:
        if isinstance(text, str):
            assert not re.search(r"\b(UPDATE|DELETE FROM|TRUNCATE)\s+ledger_", text, re.IGNORECASE)


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_every_setting_is_described_and_documented() -> None:
    documented = set(
        re.findall(r"^\| `(JAUGE_[A-Z_]+)` \|", (ROOT / "docs" / "operating.md").read_text(), re.MULTILINE)
    )
    assert documented == {f"JAUGE_{name.upper()}" for name in Settings.model_fields}
    assert all(field.description for field in Settings.model_fields.values())


def test_pinned_dependencies_have_hashes_and_name_no_index() -> None:
    for path in (ROOT / "requirements").glob("*.txt"):
        text = path.read_text()
        pins = re.findall(r"^[a-z0-9][a-z0-9._-]*==", text, re.MULTILINE | re.IGNORECASE)
        assert pins
        assert text.count("--hash=sha256:") >= len(pins)
        assert "://" not in text
        assert "--index-url" not in text


def test_compose_has_every_part_with_its_health_and_no_secret() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    services = compose["services"]
    assert set(services) == {"migrate", "api", "worker", "postgres", "valkey"}
    assert all("healthcheck" in service for name, service in services.items() if name != "migrate")
    assert all(service["volumes"] for service in (services["postgres"], services["valkey"]))
    shared = {services[name]["volumes"][0].partition(":")[2] for name in ("api", "worker")}
    assert shared == {services["worker"]["environment"]["JAUGE_DATA"]}
    for variable in ("JAUGE_POSTGRES_PASSWORD", "JAUGE_VALKEY_PASSWORD", "JAUGE_SECRET_KEY"):
        assert f"${{{variable}:?" in (ROOT / "docker-compose.yml").read_text()
