"""Each pip command that ipcq prints, or that a page gives, installs the distribution that is built here."""

import ast
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from importlib.metadata import requires
from pathlib import Path

import pytest

from building import LOCAL, ROOT, Built, pip
from ipcq._distribution import DISTRIBUTION, FORMER

CODE = ("ipcq/**/*.py", "backends/**/*.py", "examples/**/*.py")
PAGES = ("*.md", "docs/**/*.md", "changelog.d/*.md")

#: Names that f-strings insert into a command; any other value is known only when the command is printed.
NAMES = {"DISTRIBUTION": DISTRIBUTION, "_DISTRIBUTION": DISTRIBUTION, "FORMER": FORMER}
LATER = "{}"

COMMAND = re.compile(r"\bpip ((?:un)?install)((?: +(?:'[^'\n]*'|[\w.\[\]<>=/{}*-]+))*)")
WITH_EXTRA = re.compile(r"\b([\w-]+)\[((?:aio|arrays|arrow|cli|mqueue|msgspec|pandas|polars|shmlock|testing)[a-z,]*)\]")

#: Options with a value.
VALUED = {"--group", "--no-binary", "--target", "-e"}


class Strings(ast.NodeVisitor):
    """Collects the strings of a module, with f-strings as they are printed."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self.found.append(node.value)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        parts = [part.value if isinstance(part, ast.Constant) else self.inserted(part.value) for part in node.values]
        self.found.append("".join(parts))

    @staticmethod
    def inserted(node: ast.expr) -> str:
        return NAMES.get(node.id, LATER) if isinstance(node, ast.Name) else LATER


def texts() -> Iterator[tuple[str, str]]:
    """Yield every text that users may read, with its file."""
    for path in sorted(path for pattern in PAGES for path in ROOT.glob(pattern)):
        yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
    for path in sorted(path for pattern in CODE for path in ROOT.glob(pattern)):
        strings = Strings()
        strings.visit(ast.parse(path.read_text(encoding="utf-8")))
        for text in strings.found:
            yield path.relative_to(ROOT).as_posix(), text


TEXTS = list(texts())
#: Each command, with the first file that has it.
COMMANDS = {
    (verb, " ".join(arguments.split())): path for path, text in TEXTS for verb, arguments in COMMAND.findall(text)
}
INSTALLS = {arguments: path for (verb, arguments), path in COMMANDS.items() if verb == "install"}
OURS = sorted(arguments for arguments in INSTALLS if DISTRIBUTION in arguments)


def named(arguments: str) -> list[str]:
    """Return the distributions that a command names."""
    words = shlex.split(arguments)
    values = {place + 1 for place, word in enumerate(words) if word in VALUED}
    positional = [word for place, word in enumerate(words) if place not in values and not word.startswith("-")]
    return [re.split(r"[\[<>=]", word)[0] for word in positional if word not in (".", LATER)]


def test_commands_are_found() -> None:
    """Otherwise the tests below prove nothing: two on pages, and one in a concatenated string."""
    assert {"'ipcq-queue[aio]'", "ipcq-queue", "--force-reinstall --no-deps ipcq-queue"} <= set(OURS)


@pytest.mark.parametrize("arguments", INSTALLS)
def test_no_command_installs_another_distribution_in_our_place(arguments: str) -> None:
    """Neither the one with our package's name on the index, nor any with a name similar to ours."""
    assert {name for name in named(arguments) if "ipcq" in name.lower()} <= {DISTRIBUTION}


@pytest.mark.parametrize("arguments", [arguments for verb, arguments in COMMANDS if verb == "uninstall"])
def test_no_command_uninstalls_our_distribution(arguments: str) -> None:
    """It is the distribution that overwrote our files, or a plugin that cannot be loaded."""
    assert set(named(arguments)) <= {FORMER}


def test_commands_with_a_name_inserted_later_concern_other_distributions() -> None:
    """Plugins that `ipcq doctor` reports as broken."""
    assert {command: path for command, path in COMMANDS.items() if LATER in command[1]} == {
        ("uninstall", LATER): "ipcq/_cli/verbs/doctor.py",
    }


@pytest.mark.parametrize(
    ("name", "extras"), sorted({found for _, text in TEXTS for found in WITH_EXTRA.findall(text)}), ids=str
)
def test_extras_are_those_of_the_distribution(name: str, extras: str) -> None:
    """Wherever a text names an extra, in a command or not."""
    known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert (name, set(extras.split(",")) - set(known)) == (DISTRIBUTION, set())


def test_the_example_of_a_backend_needs_our_distribution() -> None:
    """Readers copy it."""
    example = tomllib.loads((ROOT / "examples" / "ipcq_file" / "pyproject.toml").read_text(encoding="utf-8"))
    assert example["project"]["dependencies"] == [DISTRIBUTION]


@pytest.mark.parametrize("arguments", OURS)
def test_a_command_installs_the_distribution_built_here(arguments: str, built: Built, tmp_path: Path) -> None:
    """pip takes our wheel, or builds our sources if the command requires it, and installs nothing called `ipcq`."""
    archive = built.sdist if "--no-binary" in arguments else built.wheel
    constraint = tmp_path / "constraint.txt"
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    constraint.write_text(f"{DISTRIBUTION} == {version}+{LOCAL}\n")
    places = "--find-links", built.directory, "--constraint", constraint
    report = json.loads(
        pip("install", "--dry-run", "--ignore-installed", "--report=-", *places, *shlex.split(arguments))
    )
    chosen = {each["metadata"]["name"].lower(): each for each in report["install"]}
    assert FORMER not in chosen
    assert chosen[DISTRIBUTION]["download_info"]["url"] == archive.as_uri()
    assert needed(chosen[DISTRIBUTION].get("requested_extras", ())) <= set(chosen)


def needed(extras: list[str]) -> set[str]:
    """Return the unconditional dependencies of the extras."""
    lines = [line for line in requires(DISTRIBUTION) or () for extra in extras if f'extra == "{extra}"' in line]
    return {re.split(r"[^\w.-]", line)[0].lower() for line in lines}
