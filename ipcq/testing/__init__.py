"""For authors of backends: the conformance suite, the state machine, the storm, and their building blocks.

Modules are imported when first used, because the suite needs pytest and the state machine hypothesis, from the extra
``ipcq-queue[testing]``. The storm needs only POSIX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ipcq.testing.contract import BackendContract
    from ipcq.testing.histories import Call, linearizable
    from ipcq.testing.machine import QueueMachine
    from ipcq.testing.oracle import Ledger, Tag, Verdict, judge
    from ipcq.testing.processes import Peer, PeerDied, Peers
    from ipcq.testing.server import Server
    from ipcq.testing.storm import Report, Storm, stress
    from ipcq.testing.tally import Tally, judge_tallies

__all__ = (
    "BackendContract",
    "Call",
    "Ledger",
    "Peer",
    "PeerDied",
    "Peers",
    "QueueMachine",
    "Report",
    "Server",
    "Storm",
    "Tag",
    "Tally",
    "Verdict",
    "judge",
    "judge_tallies",
    "linearizable",
    "stress",
)

_SUITE = "ipcq.testing.contract"
_HOMES = {
    "BackendContract": _SUITE,
    "QueueMachine": "ipcq.testing.machine",
    **dict.fromkeys(("Ledger", "Tag", "Verdict", "judge"), "ipcq.testing.oracle"),
    **dict.fromkeys(("Call", "linearizable"), "ipcq.testing.histories"),
    **dict.fromkeys(("Peer", "PeerDied", "Peers"), "ipcq.testing.processes"),
    "Server": "ipcq.testing.server",
    **dict.fromkeys(("Report", "Storm", "stress"), "ipcq.testing.storm"),
    **dict.fromkeys(("Tally", "judge_tallies"), "ipcq.testing.tally"),
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if home == _SUITE:
        import pytest

        # So that failed assertions of the suite show their operands; pytest rewrites only modules that it collects.
        pytest.register_assert_rewrite(home)
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
