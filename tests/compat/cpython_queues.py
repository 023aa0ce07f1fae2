"""Runs CPython's tests of its queues on those of ipcq: ``python cpython_queues.py METHOD``, with a start method.

The tests come with the interpreter, as the module `test._test_multiprocessing`.
"""

import multiprocessing
import multiprocessing.queues
import sys
import traceback
import unittest

from ipcq.compat import multiprocessing as face

for name in ("Queue", "JoinableQueue", "SimpleQueue"):
    setattr(multiprocessing, name, getattr(face, name))
    setattr(multiprocessing.queues, name, getattr(face, name))

from test import _test_multiprocessing as theirs  # noqa: E402  # its classes use the names above


class Printing(face.Queue):
    """Handles an object that cannot be pickled as a feeder thread does, for the test of that."""

    @staticmethod
    def _on_queue_feeder_error(e, obj):
        traceback.print_exception(e)


class TestQueue(theirs._TestQueue, theirs.ProcessesMixin, unittest.TestCase):
    """All of CPython's tests of queues."""

    def test_queue_feeder_donot_stop_onexc(self):
        self.Queue = Printing
        super().test_queue_feeder_donot_stop_onexc()


class TestSimpleQueue(theirs.TestSimpleQueue):
    """All of CPython's tests of simple queues."""


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv.pop(1), force=True)
    unittest.main(verbosity=2)
