"""Runs CPython's own tests of its queues on ours: ``python cpython_queues.py METHOD``, METHOD being a start method.

They come with the interpreter, as the module `test._test_multiprocessing`.
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

from test import _test_multiprocessing as theirs  # noqa: E402  # its classes take the names above when they are made


class Printing(face.Queue):
    """Does with what cannot be pickled what a feeder thread does, for the case that is about that."""

    @staticmethod
    def _on_queue_feeder_error(e, obj):
        traceback.print_exception(e)


class TestQueue(theirs._TestQueue, theirs.ProcessesMixin, unittest.TestCase):
    """Their cases, all of them."""

    def test_queue_feeder_donot_stop_onexc(self):
        self.Queue = Printing
        super().test_queue_feeder_donot_stop_onexc()


class TestSimpleQueue(theirs.TestSimpleQueue):
    """The same for the simple one."""


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv.pop(1), force=True)
    unittest.main(verbosity=2)
