"""C42, clauses 35 to 37: places, backend-specific options, and passwords."""

import pickle
import traceback
from collections.abc import Callable
from typing import ClassVar

import pytest

import ipcq
from ipcq.testing.contract._bench import Bench

#: A password that must not show anywhere.
CANARY = "c4n4ry"


class Places(Bench):
    """Where queues are, and what leads to them."""

    places: ClassVar[tuple[str, ...]] = ()

    def _two_places(self) -> tuple[str, str]:
        self.needs("places")
        if len(self.places) < 2:
            pytest.fail(f"backend {self.backend!r} has places: set places to the URLs of two of them")
        for place in self.places[:2]:
            self._cleaning.callback(self._forget, self.name, place)
        return self.places[0], self.places[1]

    def test_queues_in_two_places_do_not_meet(self) -> None:
        """Clause 35: a message that is put in one place is in no other."""
        one, two = (self.create(at=place) for place in self._two_places())
        one.put("here")
        assert (one.qsize(), two.qsize(), one.backend == two.backend) == (1, 0, False)

    def test_a_queue_is_found_in_its_place_alone(self) -> None:
        """Clause 35: exists, unlink and the listing mean the place that they are given."""
        here, there = self._two_places()
        with self.create(at=here) as queue:
            assert (ipcq.exists(self.name, here), ipcq.exists(self.name, there)) == (True, False)
            with pytest.raises(ipcq.QueueNotFound):
                ipcq.unlink(self.name, there)
            if queue.capabilities.listing:
                assert [info.backend for info in ipcq.queues(here) if info.name == self.name] == [queue.backend]
                assert [info for info in ipcq.queues(there) if info.name == self.name] == []
        ipcq.unlink(self.name, here)
        assert not ipcq.exists(self.name, here)

    def test_the_text_of_a_place_leads_to_it(self) -> None:
        """Clause 35: also in another process, and it is the text of the queue that is found there."""
        here, _ = self._two_places()
        queue = self.create(at=here)
        text = queue.backend
        assert text.endswith("/")
        with ipcq.open(self.name, text.removesuffix("/"), create=False) as same:
            assert same.backend == text
            same.put("found")
        if queue.capabilities.scope >= ipcq.Scope.HOST:
            self.run("ipcq.open(name, sys.argv[1], create=False).put('found')", text)
            assert self.drain(queue) == ["found", "found"]

    def test_a_url_of_a_queue_leads_to_its_place(self) -> None:
        """Clause 35: the name follows the place."""
        here, _ = self._two_places()
        queue = self.create(at=here)
        with ipcq.open(f"{queue.backend}{self.name[1:]}", create=False) as same:
            assert (same.name, same.backend) == (self.name, queue.backend)

    def test_a_backend_without_places_refuses_them(self) -> None:
        """Clause 35: it does not take another queue for the one in the place."""
        self.lacks("places")
        with pytest.raises(ipcq.InvalidArgument):
            ipcq.exists(f"{self._plugin}://host.invalid/directory{self.name}")

    def test_every_handle_has_the_options_of_the_queue(self) -> None:
        """Clause 36: those of its creation, which agree with the request."""
        queue = self.create()
        with self.attach() as other:
            assert other.options == queue.options
        given = {option: value for option, value in self.small.items() if option in queue.options}
        assert {**queue.options, **given} == queue.options

    def test_no_password_is_shown(self) -> None:
        """C42, clause 37: of a place, whether it can be used or not."""
        here, _ = self._two_places()
        scheme, _, rest = here.partition("://")
        shown: list[str] = []

        def use() -> None:
            with ipcq.open(self.name, f"{scheme}://user:{CANARY}@{rest}", **self.small) as queue:
                shown.extend([repr(queue), queue.backend, repr(queue.options)])
                for call in (lambda: pickle.dumps(queue), queue.get_nowait):
                    tell(call)

        def tell(call: Callable[[], object]) -> None:
            try:
                shown.append(repr(call()))
            except ipcq.MessageQueueError as error:
                shown.extend([repr(error), str(vars(error)), *told(error)])

        tell(use)
        assert shown
        assert CANARY not in "".join(shown)


def told(error: BaseException | None) -> list[str]:
    """Return the texts of an error and of those behind it, without the lines of the program."""
    texts = []
    while error is not None:
        texts += traceback.format_exception_only(error)
        error = error.__cause__ or error.__context__
    return texts
