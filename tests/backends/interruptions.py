"""Signal handlers that raise at each place of a call."""

import sys
from collections.abc import Callable
from contextlib import suppress
from dis import opname
from types import CodeType, FrameType
from typing import Any


class Interrupted(BaseException):
    """What a signal handler raises."""


class Interruption:
    """Raises in a call where ipcq has begun or made a call, as a signal handler may, at another place in each use."""

    def __init__(self) -> None:
        self._seen: set[tuple[CodeType, int]] = set()

    def __call__(self, call: Callable[[], object]) -> str:
        """Interrupt a call; return where, or nothing if it has no other place."""
        self._place = ""
        self._last: dict[FrameType, int] = {}
        sys._getframe().f_trace_opcodes = True  # CPython 3.12 looks for it only when tracing begins
        before = sys.gettrace()
        with suppress(Interrupted):
            try:
                sys.settrace(self._trace)
                call()
            finally:
                sys.settrace(before)
        self._last.clear()
        return self._place

    def _trace(self, frame: FrameType, event: str, _argument: object) -> Any:
        if not frame.f_globals["__name__"].startswith("ipcq"):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self._raise_after_call(frame)
            self._last[frame] = frame.f_lasti
        return self._trace

    def _raise_after_call(self, frame: FrameType) -> None:
        code, last = frame.f_code, self._last.get(frame)
        place = (code, frame.f_lasti)
        # CPython calls handlers nowhere else, but at the end of a loop's body, and not after a call that has failed.
        handles = last is None or opname[code.co_code[last]].startswith("CALL")
        failed = opname[code.co_code[frame.f_lasti]] == "PUSH_EXC_INFO"
        if handles and not failed and not self._place and place not in self._seen:
            self._seen.add(place)
            self._place = f"{code.co_filename}:{frame.f_lineno}"
            raise Interrupted
