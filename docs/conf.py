"""Settings of Sphinx."""

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "ipcq"
author = "The ipcq developers"
copyright = author
version = release = installed_version("ipcq-queue")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "from_code"]
exclude_patterns = ["_build", "_ext"]
html_theme = "furo"
html_title = "ipcq"

myst_enable_extensions = ["attrs_inline", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
# `open` has types that mean something only to a type checker; the reader gets the defaults.
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# Single backquotes in docstrings lead to what they name, where it is documented.
default_role = "py:obj"
