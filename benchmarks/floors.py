"""The limits of the hardware, the kernel and CPython: programs in C, compiled when needed, as contestants.

floors.c measures mechanisms without a queue; floor_ring.c is the simplest queue for one thread in CPython.
"""

import atexit
import os
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

from ipcq._bench.contestant import FLOOR, Declined, Failed, ReadEnd, Sample, WriteEnd
from ipcq._bench.queues import Queues
from ipcq._bench.workload import Workload

HERE = Path(__file__).parent

#: As in setup.py.
EXTENSION_OPTIONS = ("-D_GNU_SOURCE=1", "-D_FILE_OFFSET_BITS=64", "-std=c11", "-O2", "-fvisibility=hidden")

#: For each floor, the arguments of floors.c by the name of the workload.
FLOORS = {
    "spinning on shared memory, C": {"ping-pong": ["spin"]},
    "futex, C": {"ping-pong": ["futex"], "wake-up": ["wake"]},
    "pipe, C": {"ping-pong": ["pipe"]},
    "futex in slices of 100 ms, C": {"idle": ["slices"]},
    "memcpy, C": {size: ["memcpy"] for size in ("64B", "1KiB", "64KiB", "1MiB")},
}


class Floor:
    """A measurement of floors.c."""

    kind = FLOOR
    version = ""

    def __init__(self, name: str) -> None:
        self.name = name

    def sample(self, workload: Workload, seconds: float) -> Sample:
        if workload.name not in FLOORS[self.name]:
            raise Declined("it does not measure this workload")
        arguments = [*FLOORS[self.name][workload.name], str(workload.lasts or seconds), str(workload.size)]
        done = subprocess.run([program(), *arguments], capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise Failed(f"floors.c ended with {done.returncode}: {done.stderr.strip()}")
        return Sample(float(done.stdout))


class RingFloor(Queues):
    """A ring of floor_ring.c, used by one thread. Both its ends are the same object.

    Args:
        name: The name of the contestant.
        kind_of_ring: The class of floor_ring.c that moves bytes; `Ring` can also move dicts.
    """

    kind = FLOOR

    def __init__(self, name: str, kind_of_ring: str) -> None:
        self.name = name
        self._kind_of_ring = kind_of_ring

    @contextmanager
    def queues(self, workload: Workload) -> Iterator[Sequence[Any]]:
        if workload.objects and self._kind_of_ring != "Ring":
            raise Declined("it moves only bytes")
        yield [getattr(extension(), "DictRing" if workload.objects else self._kind_of_ring)()]

    def writer(self, address: Any, workload: Workload) -> WriteEnd:
        return WriteEnd(put=address.put)

    def reader(self, address: Any, workload: Workload) -> ReadEnd:
        return ReadEnd(get=address.get)


def compiled(place: Path, target: str, *arguments: str) -> Path:
    """Call the compiler, and return the path of the result in the directory `place`."""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    try:
        subprocess.run([*compiler, *arguments, "-o", place / target], check=True)
    except OSError as error:
        raise Declined(f"no C compiler: {error}") from None
    return place / target


@cache
def program() -> str:
    """Compile floors.c, and return the program's path; it is deleted when this process exits."""
    place = Path(tempfile.mkdtemp(prefix="ipcq-floors-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return str(compiled(place, "floors", "-std=c11", "-O2", f"{HERE}/floors.c"))


def python_options() -> list[str]:
    """Return the compiler's options for an extension, in the order in which setuptools gives them."""
    configured = sysconfig.get_config_var("CFLAGS") or "", sysconfig.get_config_var("CCSHARED") or "-fPIC"
    paths = {sysconfig.get_path("include"), sysconfig.get_path("platinclude")}
    return [*shlex.split(" ".join(configured)), *(f"-I{path}" for path in paths), *EXTENSION_OPTIONS]


@cache
def extension() -> Any:
    """Compile floor_ring.c like ipcq's own extensions, and return the module."""
    with tempfile.TemporaryDirectory(prefix="ipcq-floors-") as place:
        path = compiled(Path(place), "floor_ring.so", *python_options(), "-shared", f"{HERE}/floor_ring.c")
        loader = ExtensionFileLoader("floor_ring", str(path))
        module = module_from_spec(spec_from_loader(loader.name, loader))
        loader.exec_module(module)  # which maps the file, so it may be deleted
    return module
