"""C2, C9, C11, C15, C16, C20: SIGKILL and SIGSTOP at any instant, while other processes continue."""

import pytest

from ipcq.testing.processes import own_seed
from ipcq.testing.storm import LEASING, MODES, Mode, stress
from processes.needs import needs_leases, usable
from processes.programs import SMALL
from processes.sizes import size

#: Kills in each mode; ``--kills`` overrides them.
KILLS: dict[Mode, int] = dict.fromkeys(MODES, size(100, 20_000, 100_000)) | {"get": size(250, 100_000, 1_000_000)}

pytestmark = [pytest.mark.storm, pytest.mark.timeout(0)]  # a storm has its own watchdog, which shows more


@pytest.mark.parametrize("mode", MODES)
def test_survivors_of_a_storm_continue_and_only_killed_consumers_lose_messages(
    mode: Mode, backend: str, kills: int | None
) -> None:
    """C2, C3, C15: nothing is duplicated, torn or reordered, and each killed consumer loses at most what it had got.

    What it had leased returns, with one more delivery.
    """
    if mode in LEASING:
        needs_leases(backend)
    report = stress(backend, mode=mode, kills=kills or KILLS[mode], seed=own_seed(), **SMALL)
    print(f"{backend} {report}")
    assert report.ok, report.stacks


@pytest.mark.parametrize("options", [{"lock": "shmlock"}, {"priorities": True}], ids=lambda options: str(*options))
def test_survivors_of_a_storm_continue_whatever_the_options_of_the_queue(
    options: dict[str, object], kills: int | None
) -> None:
    """C2, C15: the same with the other lock and the other order of pyshm."""
    if "lock" in options:
        pytest.importorskip("shmlock", reason="lock='shmlock' cannot be used here without shmlock")
    report = stress(usable("pyshm"), kills=kills or KILLS["get"], seed=own_seed(), **SMALL, **options)
    print(f"pyshm {options} {report}")
    assert report.ok, report.stacks
    assert report.recoveries or "lock" not in options


@pytest.mark.parametrize("priorities", [False, True], ids=["in order", "by priority"])
@pytest.mark.parametrize("mode", ["get", "batches"])
def test_survivors_of_a_storm_over_the_ring_continue_with_messages_of_all_sizes(
    mode: Mode, priorities: bool, kills: int | None
) -> None:
    """C2, C9, C15: also for messages that shm copies outside its lock, with three producers and consumers."""
    report = stress(
        usable("shm"),
        mode=mode,
        kills=kills or size(150, 20_000, 100_000),
        seed=own_seed(),
        producers=3,
        consumers=3,
        size=60_000,
        max_messages=8,
        max_message_size=70_000,
        priorities=priorities,
    )
    print(f"shm {report}")
    assert report.ok, report.stacks
