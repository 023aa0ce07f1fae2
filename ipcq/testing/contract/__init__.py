"""The conformance suite: one class that proves a backend, clause by clause.

A backend's tests are one subclass::

    from ipcq.testing import BackendContract

    class TestMine(BackendContract):
        backend = "mine"

The suite is taken whole. What a backend cannot do it says in its `Capabilities`; the suite then skips what rests on the
ability, with the ability's name, and proves instead that it is refused as it should be.
"""

from ipcq.testing.contract._abilities import Abilities
from ipcq.testing.contract._batches import Batches
from ipcq.testing.contract._delivery import Delivery
from ipcq.testing.contract._ends import Ends
from ipcq.testing.contract._handles import Handles
from ipcq.testing.contract._limits import Limits
from ipcq.testing.contract._names import Names
from ipcq.testing.contract._safety import Safety
from ipcq.testing.contract._signals import Signals
from ipcq.testing.contract._waiting import Waiting

__all__ = ("BackendContract",)


class BackendContract(Delivery, Batches, Waiting, Signals, Ends, Names, Limits, Handles, Abilities, Safety):
    """Prove that a backend keeps the contract: subclass it under a name that begins with ``Test`` and set `backend`.

    The docstring of each test begins with what the test proves, so a failure names it. ``Clause 14`` is number 14 of
    the contract in the docstring of `ipcq.backend`. ``C14`` is a promise to users, on the page "What is promised" of
    ipcq's documentation (``docs/reference/promises.md`` in the source distribution).

    Attributes:
        backend: Name of the backend, as users call it.
        small: What the suite creates its queues with, `max_messages` (from 3 to 4) and `max_message_size` (512) among
            it; options of the backend's own may be added.
        patience: Seconds after which a test that hangs is ended and fails.
    """
