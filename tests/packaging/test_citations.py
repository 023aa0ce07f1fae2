"""Every number that code, tests and pages cite is a promise (C14) or a clause of the contract (clause 14)."""

import re
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

import ipcq
import ipcq.backend

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "promises.md").read_text()
PLACES = ("ipcq", "backends", "tests", "docs", "examples", "benchmarks")
KINDS = (".py", ".pyi", ".c", ".h", ".pml", ".diff", ".md")

#: White space, including the line breaks of a comment.
GAP = r"[\s#*]+"
#: Not after noqa, because rules of the linter have names like those of promises.
PROMISE = re.compile(r"(?<![\w%])(?<!noqa: )C(\d+)\b(\([a-z]\))?")
CLAUSE = re.compile(rf"\bclauses?{GAP}(\d+(?:(?:,|{GAP}and|{GAP}to){GAP}\d+)*)", re.IGNORECASE)
#: A citation that could mean either list. Each list has a single form.
AMBIGUOUS = re.compile(
    rf"\b(?:clauses?|contract){GAP}C\d+|\bcontract{GAP}clauses?{GAP}\d+|\b(?:promises?|contract){GAP}\d+\b",
    re.IGNORECASE,
)


def promised(page: str) -> dict[int, str]:
    """Return a page's paragraph on each promise, by number."""
    found = re.findall(r"^### C(\d+)\n\n(\*\*.+?)(?=\n\n)", page, re.MULTILINE | re.DOTALL)
    return {int(number): text for number, text in found}


def numbered(contract: str) -> set[int]:
    """Return the numbers of the contract's clauses."""
    return {int(number) for number in re.findall(r"^(\d+)\. ", contract, re.MULTILINE)}


PROMISES = promised(PAGE)
CLAUSES = numbered(ipcq.backend.__doc__)


def wrong(text: str, promises: Collection[int] = PROMISES, clauses: Collection[int] = CLAUSES) -> list[str]:
    """Return the citations in a text that match no number, or could mean either list."""
    found = [match.group() for match in AMBIGUOUS.finditer(text)]
    found += [match.group() for match in PROMISE.finditer(text) if match[2] or int(match[1]) not in promises]
    for match in CLAUSE.finditer(text):
        if not all(int(number) in clauses for number in re.findall(r"\d+", match[1])):
            found.append(match.group())
    return found


def files() -> Iterator[Path]:
    """Yield each file that may have citations, except this one, whose examples are wrong on purpose."""
    for place in PLACES:
        for path in (ROOT / place).rglob("*.*"):
            if path.suffix in KINDS and "_build" not in path.parts and path != Path(__file__):
                yield path
    yield from ROOT.glob("*.md")
    yield from ROOT.glob("*.py")


def test_every_citation_matches_one_promise_or_clause() -> None:
    """Its number is in one of the two lists, and its form shows in which."""
    assert {path.relative_to(ROOT): bad for path in files() if (bad := wrong(path.read_text(encoding="utf-8")))} == {}


@pytest.mark.parametrize(
    "text",
    [
        "C43: it does more.",
        "C15(b): kills at random.",
        "Clause 99: there is more.",
        "C14, clauses 5, 99: it ends.",
        "clauses 1 to 50",
        "# what clause\n# 77 says",
        "clause C14",
        "CONTRACT C14: it ends.",
        "Contract clause 14: it wakes.",
        "promise 14",
        "as the contract\n * 14 has it",
    ],
)
def test_a_wrong_citation_is_found(text: str) -> None:
    """A number that is in no list, or a form that could mean either."""
    assert len(wrong(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "C1, C14, clauses 5, 16: it ends.",
        "Clauses 1 and 4",
        "%C3%BC",
        "0xC1",
        "C1 to C8",
        "the clause of a try",
        "# noqa: C901",
    ],
)
def test_a_correct_citation_is_accepted(text: str) -> None:
    """Several at a time, ranges, and text that only looks like a citation."""
    assert wrong(text) == []


def test_a_promise_missing_from_the_page_is_noticed() -> None:
    """Without its paragraph, its citations match no promise."""
    page = PAGE.replace("### C14\n", "")
    assert wrong("C14: it ends.", promises=promised(page)) == ["C14"]


def test_the_page_has_all_promises() -> None:
    """From 1 to 42, none left out."""
    assert list(PROMISES) == list(range(1, 43))


def test_the_contract_is_numbered_without_gaps() -> None:
    """The clauses after one that was removed are renumbered."""
    assert sorted(CLAUSES) == list(range(1, len(CLAUSES) + 1))


#: The page's table: whether each backend keeps each promise.
ROWS = [re.split(r" *\| *", line)[1:-1] for line in re.findall(r"^\|.*\|$", PAGE, re.MULTILINE)]
BACKENDS = [cell.strip("`") for cell in ROWS[0][2:]]
KEEPS = {row[0]: row[2:] for row in ROWS[2:]}
UNBUILT = "**not built**"


def kept(number: int) -> list[str]:
    """Return the table's cells for one promise."""
    return KEEPS[f"[C{number}](#c{number})"]


def test_the_table_has_a_row_for_each_promise() -> None:
    """In their order, each with a link to its paragraph."""
    assert list(KEEPS) == [f"[C{number}](#c{number})" for number in PROMISES]


def test_the_table_has_a_column_for_each_bundled_backend() -> None:
    """In the order of the README's table."""
    readme = re.search(r"^\| \| (.*) \|$", (ROOT / "README.md").read_text(), re.MULTILINE)[1]
    assert readme.replace("`", "").split(" | ") == BACKENDS


def test_the_table_has_only_words_that_are_explained() -> None:
    """Each cell is one of the words that the text above the table explains."""
    words = {"yes", "part", "no", "–", UNBUILT}
    assert [row for row in ROWS[2:] if not words.issuperset(row[2:])] == []


def test_a_promise_that_is_not_built_is_marked_twice() -> None:
    """In the table, and at the head of its paragraph."""
    marked = [number for number, text in PROMISES.items() if "Not built yet.**" in text]
    assert [number for number in PROMISES if set(kept(number)) == {UNBUILT}] == marked


def test_a_promise_that_is_built_has_a_test() -> None:
    """A promise without a test is no promise."""
    tests = [path for path in files() if path.name.startswith("test_") or "contract" in path.parts]
    tried = {int(match[1]) for path in tests for match in PROMISE.finditer(path.read_text(encoding="utf-8"))}
    assert [number for number in PROMISES if UNBUILT not in kept(number) and number not in tried] == []


def cells_of(able: ipcq.Capabilities) -> dict[int, str]:
    """Return the cells of a backend's column that follow from its capabilities."""
    alone = able.scope < ipcq.Scope.HOST
    return {
        1: "yes" if able.persistence >= ipcq.Persistence.KERNEL else "part",
        **({4: "yes"} if able.leases else {}),
        9: "yes" if able.atomic_batch else "part",
        **dict.fromkeys((11, 15, 16, 19), "–" if alone else "yes"),
        20: "part" if alone else "yes",
        27: "yes" if able.modes else "no",
        32: "yes" if able.ends_on_fileno else "no",
        40: "yes" if able.persistence >= ipcq.Persistence.SYNCED else UNBUILT,
        41: "yes" if able.scope >= ipcq.Scope.NETWORK else UNBUILT,
    }


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_table_agrees_with_the_capabilities(backend: str) -> None:
    """Each cell that a capability decides agrees with the descriptor."""
    (able,) = (info.capabilities for info in ipcq.backends() if info.name == backend)
    column = BACKENDS.index(backend)
    expected = cells_of(able)
    assert {number: kept(number)[column] for number in expected} == expected
