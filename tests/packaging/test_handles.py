"""What is private to a handle stays in the package of handles: the others use `ipcq._handle.interface`."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipcq._handle.handle import Handle
from ipcq._handle.lifecycle import Lifecycle
from ipcq._handle.queue import Queue

ROOT = Path(__file__).parents[2]
HOME = ROOT / "ipcq" / "_handle"
OTHERS = [file for file in sorted((ROOT / "ipcq").rglob("*.py")) if HOME not in file.parents]

#: Methods and attributes of a handle with one underscore in front; slots are members of their classes.
PRIVATE = {name for kind in (Lifecycle, Handle, Queue) for name in vars(kind) if name[0] == "_" and name[:2] != "__"}


def reached(source: str) -> Iterator[str]:
    """Yield what source text reaches into: private members of another object, and private names of the package."""
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
def test_nobody_reaches_into_a_handle(file: Path) -> None:
    """Neither faces nor the command line nor the suite name what is private to `Handle` or `Queue`."""
    assert not list(reached(file.read_text()))


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
def test_reaching_into_a_handle_is_seen(line: str) -> None:
    """Each way to do it is found."""
    assert list(reached(line))


@pytest.mark.parametrize("line", ["self._channel", "queue.capabilities", "from ipcq._handle.interface import taker"])
def test_what_is_ones_own_or_public_is_let_through(line: str) -> None:
    """A class may call its own attributes as a handle calls its."""
    assert not list(reached(line))
