"""The directory of the header for backends in C."""

import os


def get_include() -> str:
    """Return the directory to pass to a C compiler with ``-I``, so that it finds ``<ipcq/channel.h>`` (clause 21)."""
    return os.path.join(os.path.dirname(os.path.dirname(__file__)), "include")
