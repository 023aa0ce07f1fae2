"""Checks an ipcq that was installed without a C compiler; run by `nox -s build`."""

import sys
from importlib.util import find_spec

import ipcq


def main() -> None:
    """Exit with a message if the backend that needs one does not say so, or if `auto` or the codec fails without it."""
    check(find_spec("ipcq._native") is None, "the codec in C is there")
    infos = {info.name: info for info in ipcq.backends()}
    (lacking,) = (info for info in infos.values() if "C extension" in info.reason)
    check(not lacking.usable, f"{lacking.name} can be used without its extension")
    check("compiler" in lacking.reason and "--no-binary" in lacking.reason, f"no way out is told: {lacking.reason}")
    name = "/ipcq-uncompiled"
    with ipcq.open(name) as queue:
        queue.put({"an": ["item"]})
        check(queue.get(timeout=10) == {"an": ["item"]}, "the item did not come back")
        check(infos[queue.backend].usable, f"the queue is on {queue.backend}")
        queue.unlink()
    check(not ipcq.exists(name, lacking.name), "its names cannot be looked for")
    print(f"without a compiler: {lacking.name} says {lacking.reason!r}, and auto takes {queue.backend}")


def check(truth: bool, complaint: str) -> None:
    if not truth:
        sys.exit(complaint)


if __name__ == "__main__":
    main()
