"""Pieces of a page that needs nothing beside itself: no script, no other file, no network."""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

DOTS_PER_INCH = 110
WIDE = 6.5  # inches from which on a figure is not made to fit a phone: it scrolls, so that its letters can be read
STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b; max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; margin: .5rem 0 0; }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; border-bottom: 1px solid #ccc; }
pre { background: #f5f5f5; padding: .6rem; font-size: .85rem; white-space: pre-wrap; word-break: break-word; }
img { max-width: 100%; height: auto; display: block; margin: .5rem 0; }
.wide { overflow-x: auto; } .wide img { min-width: 38rem; } table { border-collapse: collapse; font-size: .85rem; }
th, td { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.quiet { color: #666; font-size: .85rem; } li { margin: .25rem 0; }
nav { display: flex; flex-wrap: wrap; gap: .2rem .8rem; }
@media print {
  @page { margin: 15mm; }
  nav { display: none; } body { max-width: none; padding: 0; font-size: 11pt; }
  .wide { overflow: visible; } .wide img { min-width: 0; } table { font-size: 8pt; }
  th, td { white-space: normal; overflow-wrap: anywhere; padding: .1rem .3rem; }
  h2 { break-after: avoid; } img, tr, pre { break-inside: avoid; }
}
"""


def page(title: str, lead: str, sections: dict[str, str]) -> str:
    """Return a page.

    Args:
        title: of the page, plain text.
        lead: what stands under it, HTML.
        sections: heading to HTML, in order; those without content are left out.
    """
    kept = {name: body for name, body in sections.items() if body}
    links = "".join(f'<a href="#{anchor(name)}">{html.escape(name)}</a>' for name in kept)
    parts = "".join(
        f'<section id="{anchor(name)}"><h2>{html.escape(name)}</h2>{body}</section>\n' for name, body in kept.items()
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><h1>{html.escape(title)}</h1>{lead}<nav>{links}</nav>\n{parts}</body></html>\n"
    )


def anchor(name: str) -> str:
    """The name of a section in links.

    >>> anchor("Where to go next")
    'where-to-go-next'
    """
    return "-".join(name.lower().split())


def text(value: Any) -> str:
    """Plain text as it stands, in a fixed width."""
    return f"<pre>{html.escape(str(value))}</pre>"


def paragraph(value: Any, kind: str = "") -> str:
    """A paragraph of plain text; `kind` "quiet" is smaller and grey."""
    return f"<p{f' class={kind!r}' if kind else ''}>{html.escape(str(value))}</p>"


def items(values: list[str]) -> str:
    """A list of plain sentences; nothing where there is none."""
    return "<ul>" + "".join(f"<li>{html.escape(value)}</li>" for value in values) + "</ul>" if values else ""


def table(frame: pandas.DataFrame, *, digits: int = 4) -> str:
    """A table, numbers with a few digits; nothing where it has no row."""
    if not len(frame):
        return ""
    shown = frame.to_html(border=0, float_format=lambda value: f"{value:.{digits}g}", na_rep="", escape=True)
    return f'<div class="wide">{shown}</div>'


def figure(ax: Axes, alternative: str) -> str:
    """The figure of some Axes as an image within the page; it is closed.

    Args:
        ax: one of its Axes.
        alternative: what it shows, for those who do not see it.
    """
    from matplotlib import pyplot

    drawn = ax.get_figure(root=True)
    assert drawn is not None
    file = io.BytesIO()
    drawn.savefig(file, format="png", dpi=DOTS_PER_INCH)
    wide = drawn.get_figwidth() > WIDE
    pyplot.close(drawn)
    content = base64.b64encode(file.getvalue()).decode()
    image = f'<img alt="{html.escape(alternative, quote=True)}" src="data:image/png;base64,{content}">'
    return f'<div class="wide">{image}</div>' if wide else image
