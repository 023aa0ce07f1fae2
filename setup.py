"""What pyproject.toml cannot say: that the C extension is for Linux alone."""

import sys
from glob import glob

from setuptools import Extension, setup

CORE = "backends/ipcq_shm/csrc"

setup(
    ext_modules=[
        Extension(
            "ipcq_shm._core",
            sources=sorted(glob(f"{CORE}/*.c")),
            depends=sorted(glob(f"{CORE}/*.h")),
            include_dirs=[CORE],
            define_macros=[("_GNU_SOURCE", "1"), ("_FILE_OFFSET_BITS", "64")],
            # Hidden: calls among the files need not go through the linker, which costs a tenth of a put.
            extra_compile_args=["-std=c11", "-O2", "-fvisibility=hidden"],
            # Without a compiler the install succeeds, and the backend says why it cannot be used.
            optional=True,
        )
    ]
    if sys.platform == "linux"
    else []
)
