"""The backend that the documentation builds keeps the contract, installed as a stranger's would be."""

import os
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipcq.testing import BackendContract

EXAMPLE = Path(__file__).parents[2] / "examples" / "ipcq_file"


@pytest.fixture(scope="module", autouse=True)
def _installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Put the module and what its pyproject.toml says on the path, here and in the programs that the suite starts."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    place = tmp_path_factory.mktemp("installed")
    metadata = place / f"ipcq_file-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = [f"{name} = {module}\n" for name, module in project["entry-points"]["ipcq.backends"].items()]
    (metadata / "entry_points.txt").write_text("".join(["[ipcq.backends]\n", *lines]))
    path = [str(EXAMPLE), str(place)]
    with pytest.MonkeyPatch.context() as patch:
        for each in path:
            patch.syspath_prepend(each)
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [*path, os.environ.get("PYTHONPATH")])))
        yield


class TestFile(BackendContract):
    backend = "file"
