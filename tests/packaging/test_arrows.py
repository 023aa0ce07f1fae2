"""The import contracts: each one holds for the code as it is, and fails when it is broken."""

import subprocess
import sys
import tomllib
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("ipcq", *(f"backends/{place.name}" for place in sorted((ROOT / "backends").glob("ipcq_*"))))
CONTRACTS = {
    contract["id"]: contract
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
}

#: For each contract, a file and an import that the contract must reject there.
BREAKS = [
    ("core", "ipcq/_handle/queue.py", "import ipcq_memory"),
    ("core", "ipcq/_cli/verbs/ls.py", "from ipcq_mqueue import NAME"),
    ("independent", "backends/ipcq_mqueue/__init__.py", "import ipcq_memory"),
    ("layers", "ipcq/errors.py", "import ipcq.backend"),
    ("layers", "ipcq/backend/__init__.py", "import ipcq.serializers"),
    ("layers", "ipcq/serializers/__init__.py", "import ipcq._handle.queue"),
    ("layers", "ipcq/_handle/queue.py", "import ipcq._opening.registry"),
    ("opening", "ipcq/_opening/registry.py", "import ipcq._opening.open"),
    ("layers", "ipcq/_opening/open.py", "import ipcq._cli"),
    ("layers", "ipcq/testing/storm.py", "import ipcq._cli"),
    ("suite", "ipcq/testing/machine.py", "import ipcq._handle.queue"),
    ("door", "backends/ipcq_memory/__init__.py", "from ipcq._process.deadline import pause"),
    ("door", "backends/ipcq_mqueue/__init__.py", "import ipcq.serializers"),
    ("door", "backends/ipcq_pyshm/_channel.py", "from ipcq._process.limits import too_many_descriptors"),
    ("door", "backends/ipcq_socketpair/_place.py", "import ipcq._opening.name_lock"),
    ("front", "backends/ipcq_memory/__init__.py", "import ipcq"),
]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the packages and the settings."""
    place = tmp_path_factory.mktemp("copy")
    for package in PACKAGES:
        copytree(ROOT / package, place / Path(package).name, ignore=ignore_patterns("__pycache__"))
    (place / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    return place


def lint(place: Path, *contracts: str) -> "subprocess.CompletedProcess[str]":
    """Run the linter on the copy."""
    script = (
        "import sys; sys.path.insert(0, '.')\n"
        "from importlinter.cli import lint_imports\n"
        f"sys.exit(lint_imports(limit_to_contracts={contracts!r}, no_cache=True))"
    )
    return subprocess.run(
        [sys.executable, "-c", script], cwd=place, capture_output=True, text=True, timeout=60, check=False
    )


def test_all_contracts_hold(copy: Path) -> None:
    """The code as it is keeps the contracts."""
    run = lint(copy)
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize(("contract", "file", "line"), BREAKS)
def test_each_contract_can_fail(copy: Path, contract: str, file: str, line: str) -> None:
    """The contract reports an import that it forbids."""
    broken = copy / file.removeprefix("backends/")
    whole = broken.read_text()
    broken.write_text(f"{whole}\n{line}\n")
    try:
        run = lint(copy, contract)
    finally:
        broken.write_text(whole)
    assert run.returncode == 1
    assert "BROKEN" in run.stdout


def test_every_contract_is_tried() -> None:
    """`BREAKS` has at least one entry for each."""
    assert {contract for contract, _, _ in BREAKS} == set(CONTRACTS)


@pytest.mark.parametrize("contract", ["suite", "door"])
def test_the_lists_of_private_packages_are_complete(contract: str) -> None:
    """A new private package of the core is forbidden to the suite and to backends, too."""
    paths = (path for path in (ROOT / "ipcq").glob("_*") if path.is_dir() or path.suffix == ".py")
    private = {f"ipcq.{path.stem}" for path in paths if not path.stem.startswith("__")}
    assert private <= set(CONTRACTS[contract]["forbidden_modules"])


def test_only_two_files_import_the_extension() -> None:
    """The linter does not see extension modules."""
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    using = [path.relative_to(ROOT).as_posix() for path in files if "ipcq._native" in path.read_text(encoding="utf-8")]
    assert sorted(using) == ["ipcq/_process/native.py", "ipcq/serializers/_in_c.py"]
