"""The conformance suite: one class that proves a backend, clause by clause.

A backend's tests are one subclass::

    from ipcq.testing import BackendContract

    class TestMine(BackendContract):
        backend = "mine"

The suite always runs as a whole. If a backend's `Capabilities` lack something, the suite skips the tests that need it,
names the missing capability, and tests that the operation is refused correctly.
"""

from ipcq.testing.contract._abilities import Abilities
from ipcq.testing.contract._batches import Batches
from ipcq.testing.contract._delivery import Delivery
from ipcq.testing.contract._dropping import Dropping
from ipcq.testing.contract._ends import Ends
from ipcq.testing.contract._handles import Handles
from ipcq.testing.contract._in_place import InPlace, InPlaceOnLoan
from ipcq.testing.contract._leases import Leases
from ipcq.testing.contract._limits import Limits
from ipcq.testing.contract._names import Names
from ipcq.testing.contract._places import Places
from ipcq.testing.contract._safety import Safety
from ipcq.testing.contract._servers import Servers
from ipcq.testing.contract._signals import Signals
from ipcq.testing.contract._waiting import Waiting

__all__ = ("BackendContract",)


class BackendContract(
    Delivery,
    Batches,
    InPlace,
    InPlaceOnLoan,
    Dropping,
    Waiting,
    Signals,
    Ends,
    Names,
    Places,
    Limits,
    Handles,
    Abilities,
    Leases,
    Safety,
    Servers,
):
    """Prove that a backend keeps the contract: subclass it under a name that begins with ``Test`` and set `backend`.

    The docstring of each test begins with the clause that the test proves, so a failure names it. ``Clause 14`` is
    number 14 of the contract in the docstring of `ipcq.backend`. ``C14`` is a promise to users, on the page "What is
    promised" of ipcq's documentation (``docs/reference/promises.md`` in the source distribution).

    The tests of a backend that reaches other machines (`Scope.NETWORK`) also override the fixture ``server``, which
    returns the `ipcq.testing.Server` of its queues.

    Attributes:
        backend: The backend's name, or the URL of a place.
        places: URLs of two other places, if the backend has places.
        small: Options of the suite's queues: `max_messages` (3 or 4), `max_message_size` (512), and if needed the
            backend's own.
        patience: Seconds after which a hanging test fails.
    """
