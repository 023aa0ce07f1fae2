"""Clauses 30 and 31: the leases of a process that is killed, or that forks."""

import signal
import time

from ipcq.testing.contract._bench import HANG, NOTICED
from ipcq.testing.contract._leasing import Leasing


class Holders(Leasing):
    """Leases of other processes."""

    def kill_a_holder(self) -> None:
        """Start a process that leases a message and kills itself."""
        child = self.launch("job = attach().lease(timeout=15); os.kill(os.getpid(), signal.SIGKILL)")
        assert child.wait() == -signal.SIGKILL

    def test_a_job_survives_the_worker_that_held_it(self) -> None:
        """C3, clause 30: its message returns within a second after a kill, counted as a failure."""
        self.needs_processes()
        self.needs("death_notice")
        queue = self.create_leasing(max_deliveries=2)
        queue.put("job")
        self.kill_a_holder()
        with queue.lease(timeout=NOTICED) as job:
            assert (job.item, job.deliveries) == ("job", 2)

    def test_a_job_that_kills_its_workers_is_a_dead_letter(self) -> None:
        """C3, clause 30: with that reason."""
        self.needs_processes()
        self.needs("death_notice")
        queue = self.create_leasing(max_deliveries=1)
        queue.put("poison")
        self.kill_a_holder()
        letter = queue.dead().get_message(timeout=NOTICED)
        assert (letter.item, letter.reason) == ("poison", "its holder died")

    def test_a_death_is_noticed_while_the_queue_is_never_empty(self) -> None:
        """C3, clause 30: consumers that never wait find it too."""
        self.needs_processes()
        self.needs("death_notice")
        queue = self.create_leasing()
        queue.put("job")
        self.kill_a_holder()
        until = time.monotonic() + NOTICED
        taken = []
        while "job" not in taken and time.monotonic() < until:
            queue.put("other")
            taken.append(queue.get(timeout=HANG))
        assert "job" in taken

    def test_a_forked_child_inherits_no_lease(self) -> None:
        """C20, clause 31: it can neither settle nor end its parent's."""
        self.needs_processes()
        queue = self.create_leasing()
        queue.put("job")
        sent = self.run(
            """
            queue = attach()
            job = queue.lease(timeout=15)
            child = os.fork()
            if not child:
                try:
                    job.ack()
                except ipcq.LeaseLost:
                    os._exit(0)
                os._exit(1)
            say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), job.lost)
            job.ack()
            """
        )
        assert (sent, queue.stats().leased in (0, None)) == (["0 False"], True)
