"""Sphinx settings: `make docs` builds the pages with warnings as errors and runs the examples in them."""

from importlib.metadata import version as installed_version
from typing import Any

project = "restain"
author = "The restain developers"
copyright = author
release = version = installed_version("restain")

extensions = [
    "cyclopts.sphinx_ext",
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build"]

# Docstrings are Google style and write code in single backticks. They say shapes and ranges in words; the annotations,
# spelt out in full, would drown them.
default_role = "code"
napoleon_numpy_docstring = False
napoleon_attr_annotations = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"

myst_heading_anchors = 3
smartquotes_action = "qe"  # quotes and ellipses; dashes would spoil --options

# Examples in docstrings are run by pytest, in their module's own names; here only those of the pages are, which are
# marked as `{doctest}`. They run in an empty folder of their own, which goes away with them.
doctest_test_doctest_blocks = ""
doctest_global_setup = """
import os, tempfile
_home, _folder = os.getcwd(), tempfile.TemporaryDirectory()
os.chdir(_folder.name)
"""
doctest_global_cleanup = """
os.chdir(_home)
_folder.cleanup()
"""

html_theme = "furo"
html_title = f"restain {release}"


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _keep_colons, priority=400)  # before napoleon, which has 500


def _keep_colons(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """In a sentence on a setting, what is before a colon is no type; napoleon takes it for one on the first line.

    So the first line is made an empty comment.
    """
    if what == "attribute":
        lines[:0] = ["..", ""]
