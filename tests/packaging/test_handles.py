"""Private names of a handle are used only in its own package; the others use `ipcq._handle.interface`."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipcq._abilities.leases import Leasing
from ipcq._handle.handle import Handle
from ipcq._handle.lifecycle import Lifecycle
from ipcq._handle.queue import Queue

ROOT = Path(__file__).parents[2]
#: A handle consists of these two; the abilities are its base classes.
HOMES = {ROOT / "ipcq" / "_handle", ROOT / "ipcq" / "_abilities"}
OTHERS = [file for file in sorted((ROOT / "ipcq").rglob("*.py")) if HOMES.isdisjoint(file.parents)]

#: Methods and attributes of a handle with one leading underscore; slots are members of their classes.
PRIVATE = {
    name for kind in (Lifecycle, Handle, Leasing, Queue) for name in vars(kind) if name[0] == "_" and name[:2] != "__"
}


def private_uses(source: str) -> Iterator[str]:
    """Yield the private members of other objects, and the private names of the package, that source text uses."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                pass
            case (
                ast.Attribute(attr=name)
                | ast.Call(
                    func=ast.Name(id="getattr" | "setattr" | "delattr" | "hasattr"),
                    args=[_, ast.Constant(value=name), *_],
                )
            ):
                if name in PRIVATE:
                    yield name
            case ast.ImportFrom(module=str(module), names=names) if module.startswith("ipcq._handle"):
                yield from (each.name for each in names if each.name.startswith("_"))


@pytest.mark.parametrize("file", OTHERS, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_other_package_uses_private_names_of_a_handle(file: Path) -> None:
    """Neither ipcq.compat nor the command line nor the suite uses private names of `Handle` or `Queue`."""
    assert not list(private_uses(file.read_text()))


@pytest.mark.parametrize(
    "line",
    [
        "self._queue._with_channel(operation)",
        "queue._channel",
        "partial(Queue._put_encoded, queue)",
        "queue._inherited = True",
        "getattr(queue, '_waits')",
        "from ipcq._handle.lifecycle import _handles",
    ],
)
def test_a_use_of_a_private_name_is_found(line: str) -> None:
    """Every form of it is found."""
    assert list(private_uses(line))


@pytest.mark.parametrize("line", ["self._channel", "queue.capabilities", "from ipcq._handle.interface import taker"])
def test_own_and_public_names_are_allowed(line: str) -> None:
    """A class may have attributes with the same names as a handle's."""
    assert not list(private_uses(line))
