"""The kernel's message queue keeps the contract, and is the one that other programs see."""

import os
import select
import stat

from ipcq.testing import BackendContract


class TestMqueue(BackendContract):
    backend = "mqueue"

    def test_another_program_meets_exactly_the_bytes(self) -> None:
        """Raw bytes, and MessagePack bare, are what stands in the kernel's queue."""
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
        """C27: what the handle says is what the kernel checks."""
        queue = self.create(mode=0o640, other_users=True)
        assert stat.S_IMODE(os.fstat(queue.fileno()).st_mode) == 0o640

    def test_a_descriptor_tells_of_space(self) -> None:
        """Clause 14: it is writable while the queue is not full."""
        queue = self.create()
        poll = select.poll()
        poll.register(queue._channel.space_fileno() or -1, select.POLLOUT)
        assert poll.poll(0)
        self.fill(queue)
        assert not poll.poll(0)
        queue.get()
        assert poll.poll(0)
