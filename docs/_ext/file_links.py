"""Links of pages to what lies in the repository and is no page: scripts and examples' folders become downloads."""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes

DEMO = "demo.py"  # what an example's folder is started by


def _script(env: Any, node: Any) -> str | None:
    """The file, from the source directory, that a link of MyST means if it means no page."""
    target = node["reftarget"]
    if node["refdomain"] == "doc":  # taken for a page by its suffix
        return None if target in env.found_docs else f"{target}.py"
    inside = posixpath.normpath(posixpath.join(posixpath.dirname(env.docname), target, DEMO))
    return inside if (Path(env.srcdir) / inside).is_file() else None


def _folder(env: Any, node: Any) -> bool:
    """Whether a link of MyST means a folder of the repository."""
    return (Path(env.srcdir) / posixpath.dirname(env.docname) / node["reftarget"]).is_dir()


def _downloads(app: Any, doctree: nodes.document) -> None:
    for node in list(doctree.findall(addnodes.pending_xref)):
        if node.get("reftype") != "myst":
            continue
        found = _script(app.env, node)
        if found is None and node["refdomain"] != "doc" and _folder(app.env, node):
            node.replace_self(node.children)  # a folder is nowhere to go to on a site
        elif found is not None:
            download = addnodes.download_reference(
                "", "", *node.children, reftarget=f"/{found}", refdoc=app.env.docname
            )
            node.replace_self(download)


def setup(app: Any) -> dict[str, Any]:
    app.connect("doctree-read", _downloads, priority=100)  # before Sphinx collects what is to be downloaded
    return {"parallel_read_safe": True}
