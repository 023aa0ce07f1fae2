"""Limits of the process that any backend may hit."""

import errno

from ipcq.errors import LimitExceeded


def too_many_descriptors() -> LimitExceeded:
    """Make the error for a full descriptor table (EMFILE), with the limit as it is now."""
    import resource  # here, because not every platform has it

    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return LimitExceeded(
        limit="RLIMIT_NOFILE",
        value=most,
        asked=most + 1,
        remedy=f"close what is not needed, or ulimit -n {2 * most} before the program starts",
        errno=errno.EMFILE,
    )
