"""The documentation site: `make docs` builds it, with warnings as errors.

The source directory is the root of the repository, so that a relative link means the same on the site as in a checkout,
and tables of benchmarks and results of examples are pages as they lie there.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "_ext")]

import latentrnn  # noqa: E402

project = "latentrnn"
author = "The latentrnn developers"
copyright = author
version = release = latentrnn.__version__

root_doc = "docs/index"
include_patterns = [
    "docs/**.md", "docs/**.rst", "docs/notebooks/*.py",
    "benchmarks/**.md", "examples/**.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md",
]  # fmt: skip
exclude_patterns = ["docs/_*", ".venv", ".git", "build", "demo", "runs", "**/__pycache__"]

extensions = [
    "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon", "sphinx.ext.viewcode",
    "myst_nb", "sphinx_design", "plain_docstrings", "file_links", "shell_help",
]  # fmt: skip

# Pages: MyST with anchors for headings, as a checkout shows them.
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4

# Notebooks are percent scripts, which lint, format and diff as code; a build runs those that changed, after
# `make clean` all, and what fails fails it.
nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = "cache"
nb_execution_cache_path = str(ROOT / "build" / "notebooks")
nb_execution_timeout = 180  # seconds a cell
nb_execution_raise_on_error = True
nb_merge_streams = True
os.environ.pop("MPLBACKEND", None)  # figures of notebooks go into the page, whatever the job's backend
os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"  # of a progress bar, which no page shows

# The reference: a page for each name, from its docstring (plain text; see `_ext/plain_docstrings.py`).
templates_path = [str(ROOT / "docs" / "_templates")]  # where autosummary looks is not where the theme does
autosummary_generate = sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs" / "reference").glob("*.rst"))
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
maximum_signature_line_length = 90
napoleon_numpy_docstring = False
napoleon_use_param = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_custom_sections = [("Warns", "returns_style")]
add_module_names = False
default_role = "literal"

html_theme = "pydata_sphinx_theme"
html_title = "latentrnn"
html_context = {"default_mode": "auto"}  # light or dark as the reader's system; unset, the theme complains of it
html_static_path = ["_static"]
html_extra_path = ["_root"]  # what leads from the root of the site to its start page
html_css_files = ["site.css"]
html_show_sourcelink = False
html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "show_prev_next": False,
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
}
html_sidebars = {"docs/index": []}
