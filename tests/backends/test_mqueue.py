"""The kernel's message queue keeps the contract, and other programs see the same queue."""

import os
import select
import stat

from ipcq.testing import BackendContract


class TestMqueue(BackendContract):
    backend = "mqueue"

    def test_another_program_reads_exactly_the_bytes(self) -> None:
        """The kernel's queue holds raw bytes, or bare MessagePack."""
        import posix_ipc

        stranger = posix_ipc.MessageQueue(self.create().name)
        try:
            self.attach(serializer="raw").put(b"\0raw\0", priority=3)
            self.attach().put([1, b"x"])
            assert stranger.receive(5) == (b"\0raw\0", 3)
            assert stranger.receive(5) == (b"\x92\x01\xc4\x01x", 0)
        finally:
            stranger.close()

    def test_the_kernel_has_the_mode(self) -> None:
        """C27: the kernel checks the mode that the handle reports."""
        queue = self.create(mode=0o640, other_users=True)
        assert stat.S_IMODE(os.fstat(queue.fileno()).st_mode) == 0o640

    def test_a_descriptor_is_writable_while_there_is_space(self) -> None:
        """Clause 14: it is writable while the queue is not full."""
        queue = self.create()
        poll = select.poll()
        poll.register(queue._channel.space_fileno() or -1, select.POLLOUT)
        assert poll.poll(0)
        self.fill(queue)
        assert not poll.poll(0)
        queue.get()
        assert poll.poll(0)
