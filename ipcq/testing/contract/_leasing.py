"""What all tests of leases need."""

import gc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ipcq
from ipcq.testing.contract._bench import Bench


@contextmanager
def unsettled() -> Iterator[None]:
    """Ignore the warning of leases that this block leaves unsettled."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect(1)  # they are young, and a full collection takes long after many tests


class Leasing(Bench):
    """Tests of queues with leases."""

    def create_leasing(self, **options: Any) -> "ipcq.Queue[Any]":
        """Create the test's queue with leases."""
        self.needs("leases")
        return self.create(leases=True, **options)
