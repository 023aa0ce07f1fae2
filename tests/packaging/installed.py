"""Looks at an ipcq that was installed from its wheel, with nothing else around: run by `nox -s build`."""

import importlib
import sys
import sysconfig
from importlib.metadata import distribution, entry_points
from pathlib import Path

BACKENDS = ("ipcq_memory", "ipcq_mqueue", "ipcq_socketpair")


def main() -> None:
    """Fail with a sentence where something is missing."""
    held = {str(file) for file in distribution("ipcq").files or ()}
    for needed in ("ipcq/py.typed", "ipcq/testing/__init__.py", *(f"{each}/py.typed" for each in BACKENDS)):
        check(needed in held, f"the wheel lacks {needed}")
    tops = {file.split("/")[0] for file in held if "/" in file and not file.startswith("..")}
    allowed = {"ipcq", *BACKENDS, "__pycache__"}
    check(all(top in allowed or top.endswith(".dist-info") for top in tops), f"the wheel holds more: {sorted(tops)}")
    licences = [file for file in held if file.endswith("LICENSE")]
    check(len(licences) == 1, "the wheel lacks its licence")
    backends = {entry.name: entry.load() for entry in entry_points(group="ipcq.backends")}
    check(
        {"memory", "mqueue", "socketpair"} <= set(backends),
        f"backends without an entry point: there are {sorted(backends)}",
    )
    (command,) = entry_points(group="console_scripts", name="ipcq")
    check(callable(command.load()), "the command ipcq leads to nothing")
    ipcq = importlib.import_module("ipcq")
    check(Path(ipcq.__file__).is_relative_to(sysconfig.get_path("purelib")), f"not the wheel's: {ipcq.__file__}")
    unusable = {info.name: info.reason for info in ipcq.backends() if not info.usable}
    check(not unusable, f"backends that cannot be used: {unusable}")
    print(f"the wheel holds {len(held)} files and the backends {', '.join(sorted(backends))}")


def check(truth: bool, complaint: str) -> None:
    if not truth:
        sys.exit(complaint)


if __name__ == "__main__":
    main()
