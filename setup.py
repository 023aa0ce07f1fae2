"""What pyproject.toml cannot express: C extensions only for Linux, and the description on the package index."""

import re
import sys
from glob import glob
from pathlib import Path

from setuptools import Extension, setup

#: The folder with the sources of each extension.
EXTENSIONS = {"ipcq._native": "ipcq/csrc", "ipcq_shm._core": "backends/ipcq_shm/csrc"}
#: The index shows the README without the files that it links to; readers find them in the sdist.
FILES = "https://pypi.org/project/ipcq-queue/#files"
NOTE = f"Pages in parentheses are files of the [source distribution]({FILES}).\n\n"


def description() -> str:
    """Return the README with the name of the file in place of each link that leads to one."""
    heading, empty, rest = Path("README.md").read_text(encoding="utf-8").partition("\n\n")
    return heading + empty + NOTE + re.sub(r"\[([^][]+)\]\((?!https?:)([^()\s]+)\)", r"\1 (`\2`)", rest)


def extension(name: str, sources: str) -> Extension:
    """Return an extension of the C files in a folder."""
    return Extension(
        name,
        sources=sorted(glob(f"{sources}/*.c")),
        depends=sorted([*glob(f"{sources}/*.h"), *glob("ipcq/include/ipcq/*.h")]),
        include_dirs=[sources, "ipcq/include"],
        define_macros=[("_GNU_SOURCE", "1"), ("_FILE_OFFSET_BITS", "64")],
        # Hidden symbols: calls between the files do not go through the PLT, which would cost a tenth of a put.
        extra_compile_args=["-std=c11", "-O2", "-g0", "-fvisibility=hidden"],
        # Symbols, which only a debugger reads, take four fifths of an extension; tests/csan uses its own options.
        extra_link_args=["-Wl,-s"],
        # Without a compiler the install succeeds: put and get then run in Python, and the backend reports why it cannot
        # be used.
        optional=True,
    )


setup(
    long_description=description(),
    long_description_content_type="text/markdown",
    ext_modules=[extension(*each) for each in EXTENSIONS.items()] if sys.platform == "linux" else [],
)
