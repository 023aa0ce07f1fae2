"""Runs the tests of a peer on its compatibility module, which has the peer's name, and prints their outcomes."""

import importlib
import json
import sys
import unittest
from typing import Any

#: How often a test that failed is run again.
RETRIES = 2


class Outcomes(unittest.TestResult):
    """Keeps the error of each test, or None."""

    def __init__(self, *_: Any) -> None:
        super().__init__()
        self.by_name: dict[str, str | None] = {}
        self.failed: list[unittest.TestCase] = []

    def startTest(self, test: unittest.TestCase) -> None:  # noqa: N802  # unittest's name
        super().startTest(test)
        self.by_name[test.id()] = None

    def addError(self, test: unittest.TestCase, err: Any) -> None:  # noqa: N802  # unittest's name
        self.by_name[test.id()] = self._exc_info_to_string(err, test)

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:  # noqa: N802  # unittest's name
        self.addError(test, err)
        self.failed.append(test)

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:  # noqa: N802  # unittest's name
        self.by_name[test.id()] = f"skipped: {reason}"


def main(peer: str, face: str, tests: str) -> None:
    assert importlib.import_module(peer).__name__ == face
    outcomes = Outcomes()
    unittest.defaultTestLoader.discover(tests, top_level_dir=".").run(outcomes)
    # Some of these tests bound the time of a call by a few milliseconds, which a busy machine may exceed once.
    for _ in range(RETRIES):
        failed, outcomes.failed = outcomes.failed, []
        unittest.TestSuite(failed).run(outcomes)
    print(json.dumps(outcomes.by_name))


if __name__ == "__main__":
    main(*sys.argv[1:])
