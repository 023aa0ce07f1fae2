"""Where the header for backends in C is installed."""

import os


def get_include() -> str:
    """Return the directory to pass to a C compiler with ``-I``, for ``#include <ipcq/channel.h>`` (clause 21)."""
    return os.path.join(os.path.dirname(os.path.dirname(__file__)), "include")
