"""How the pages are built: `tox -e docs`. Warnings are errors there."""

from importlib.metadata import version as version_of

project = "walrus"
author = "the authors of walrus"
release = version = version_of("walrus-core")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["**/.tox", "changes", "_build", "**/.pytest_cache"]
html_theme = "furo"
html_title = f"walrus {release}"
html_show_copyright = False
source_suffix = {".md": "markdown"}
myst_heading_anchors = 4
# The generated page of benchmarks has small headings below its title.
suppress_warnings = ["myst.header"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True, "inherited-members": False}
napoleon_numpy_docstring = False
