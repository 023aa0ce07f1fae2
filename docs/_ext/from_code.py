"""Directives that print text and data from the code, so that pages cannot contradict it."""

import re
from base64 import b64encode
from html import escape
from importlib import import_module
from itertools import chain

from benchmark_table import UNMEASURED, all_of, leases, page, ratios, read, same_thread
from capability_table import table
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import nested_parse_with_titles
from sphinx.util.typing import ExtensionMetadata

import ipcq
from ipcq._bench.plot import caption, svg
from ipcq._distribution import DISTRIBUTION


class Generated(SphinxDirective):
    """A directive that inserts lines of Markdown."""

    def lines(self) -> list[str]:
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        place = nodes.section()
        place.document = self.state.document
        nested_parse_with_titles(
            self.state, StringList(self.lines(), source=self.env.doc2path(self.env.docname)), place
        )
        return place.children


class ModuleDocstring(Generated):
    """Prints the docstring of a module, written in Markdown, with link targets for its numbered clauses."""

    required_arguments = 1

    def lines(self) -> list[str]:
        text = import_module(self.arguments[0]).__doc__ or ""
        text = re.sub(r"^(\d+)\. +", r"\g<0>[]{#clause-\1}", text, flags=re.MULTILINE)
        return text.replace("``", "`").splitlines()


class CapabilityTable(Generated):
    """Prints the platforms and capabilities of the bundled backends, from their descriptors."""

    def lines(self) -> list[str]:
        return list(table([info for info in ipcq.backends() if info.distribution == DISTRIBUTION]))


class BenchmarkTable(Generated):
    """Prints the reports of a script in benchmarks/summary.json as tables."""

    required_arguments = 1

    def lines(self) -> list[str]:
        return list(chain.from_iterable(["", *page(report)] for report in all_of(self.arguments[0])))


class SameThreadTable(Generated):
    """Prints the reports of same_thread.py in benchmarks/summary.json as tables."""

    def lines(self) -> list[str]:
        reports = all_of("same_thread")
        return list(chain.from_iterable(["", *same_thread(report)] for report in reports)) or [UNMEASURED]


class LeasesTable(Generated):
    """Prints the reports of leases.py in benchmarks/summary.json as tables."""

    def lines(self) -> list[str]:
        reports = all_of("leases")
        return list(chain.from_iterable(["", *leases(report)] for report in reports)) or [UNMEASURED]


class BenchmarkRatios(Generated):
    """Prints a comparison of a contestant of benchmarks/summary.json with the one that it replaces."""

    required_arguments = 1

    def lines(self) -> list[str]:
        return list(ratios(read(self.arguments[0])))


class BenchmarkChart(SphinxDirective):
    """Draws a report of benchmarks/summary.json."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        report = read(self.arguments[0])
        # As an image, so that its style sheet does not affect the page.
        drawn = b64encode(svg(report).encode()).decode()
        image = f'<img src="data:image/svg+xml;base64,{drawn}" alt="{escape(caption(report))}" style="width: 100%">'
        return [nodes.raw("", image, format="html")]


class PlainAttributes:
    """Prevents napoleon from taking the text before a colon in an attribute's docstring as its type."""

    def __init__(self, app: Sphinx) -> None:
        self.written: list[str] = []
        app.connect("autodoc-process-docstring", self.before, priority=400)
        app.connect("autodoc-process-docstring", self.after, priority=600)  # napoleon is at 500

    def before(self, app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
        self.written = list(lines)

    def after(self, app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
        if what in ("attribute", "data", "property"):
            lines[:] = self.written


def setup(app: Sphinx) -> ExtensionMetadata:
    app.add_directive("module-docstring", ModuleDocstring)
    app.add_directive("capability-table", CapabilityTable)
    app.add_directive("benchmark-table", BenchmarkTable)
    app.add_directive("same-thread-table", SameThreadTable)
    app.add_directive("leases-table", LeasesTable)
    app.add_directive("benchmark-ratios", BenchmarkRatios)
    app.add_directive("benchmark-chart", BenchmarkChart)
    PlainAttributes(app)
    return {"parallel_read_safe": True}
