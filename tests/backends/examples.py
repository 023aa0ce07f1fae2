"""The backends in `examples`, installed for tests as third-party backends are."""

import os
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@contextmanager
def installed(name: str, place: Path) -> Iterator[None]:
    """Put an example and its metadata on the path, here and in the programs that tests start."""
    project = tomllib.loads((EXAMPLES / name / "pyproject.toml").read_text())["project"]
    metadata = place / f"{name}-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = [f"{offer} = {module}\n" for offer, module in project["entry-points"]["ipcq.backends"].items()]
    (metadata / "entry_points.txt").write_text("".join(["[ipcq.backends]\n", *lines]))
    path = [str(EXAMPLES / name), str(place)]
    with pytest.MonkeyPatch.context() as patch:
        for each in path:
            patch.syspath_prepend(each)
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [*path, os.environ.get("PYTHONPATH")])))
        yield
