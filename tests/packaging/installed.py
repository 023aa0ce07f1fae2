"""Checks an ipcq that was installed from its wheel in an empty environment; run by `nox -s build`."""

import importlib
import sys
import sysconfig
import tomllib
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import Distribution, distribution, entry_points
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main() -> None:
    """Exit with a message if something is missing."""
    ours = distribution("ipcq-queue")
    held = {file.as_posix() for file in ours.files or () if file.suffix != ".pyc" and ".." not in file.parts}
    packed = {file for file in held if ".dist-info/" not in file and not file.endswith(tuple(EXTENSION_SUFFIXES))}
    written = {file.relative_to(place).as_posix() for place in (ROOT, ROOT / "backends") for file in sources(place)}
    check(packed >= written, f"the wheel lacks {sorted(written - packed)}")
    check(packed <= written, f"the wheel holds more: {sorted(packed - written)}")
    check(sum(file.endswith("LICENSE") for file in held) == 1, "the wheel lacks its licence")
    compiled = sorted(file.parts[0] for file in ours.files or () if file.name.endswith(tuple(EXTENSION_SUFFIXES)))
    # They are optional, so a build without them succeeds silently.
    check(
        compiled == (["ipcq", "ipcq_shm"] if sys.platform == "linux" else []), f"the wheel has extensions of {compiled}"
    )
    check(pure(ours) != bool(compiled), "the wheel has another tag than what it holds")
    offered = {entry.name: entry.load() for entry in entry_points(group="ipcq.backends")}
    wanted = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["ipcq.backends"])
    check(wanted == set(offered), f"not the backends of pyproject.toml: {sorted(offered)}")
    (command,) = entry_points(group="console_scripts", name="ipcq")
    check(callable(command.load()), "the command ipcq leads to nothing")
    ipcq = importlib.import_module("ipcq")
    place = sysconfig.get_path("purelib" if pure(ours) else "platlib")
    check(Path(ipcq.__file__).is_relative_to(place), f"not the wheel's: {ipcq.__file__}")
    unusable = {info.name: info.reason for info in ipcq.backends() if works_here(info) and not info.usable}
    del unusable["redis"]  # its library is an extra
    if sys.version_info >= (3, 14):  # a library that may have to be compiled is an extra
        unusable = {name: reason for name, reason in unusable.items() if "pip install" not in reason}
    check(not unusable, f"backends that cannot be used: {unusable}")
    print(f"the wheel holds {len(held)} files and the backends {', '.join(sorted(offered))}")


def sources(place: Path) -> list[Path]:
    """List the files below a source root that belong to a wheel."""
    patterns = "*.py", "*.pyi", "py.typed", "include/**/*.h"
    return [file for package in place.glob("ipcq*") for pattern in patterns for file in package.rglob(pattern)]


def pure(ours: Distribution) -> bool:
    return "Root-Is-Purelib: true" in (ours.read_text("WHEEL") or "")


def works_here(info: object) -> bool:
    platforms = getattr(info, "platforms", None)
    return platforms is None or sys.platform.startswith(platforms)


def check(truth: bool, complaint: str) -> None:
    if not truth:
        sys.exit(complaint)


if __name__ == "__main__":
    main()
