"""A model's declared parts as a graph: what goes into what."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any, Literal

from latentrnn.models import sites
from latentrnn.models.features.feature import Feature

Kind = Literal["covariate", "latent", "transition", "gain", "observation"]

COLUMNS: dict[Kind, int] = {"covariate": 0, "latent": 0, "transition": 1, "gain": 2, "observation": 3}
# colours that the colour-blind tell apart (Okabe and Ito), paler
COLOURS: dict[Kind, str] = {
    "covariate": "#e8e8e8", "latent": "#cfe6f5", "transition": "#fde3c0", "gain": "#d9f0e5", "observation": "#f5d9e7",
}  # fmt: skip
WIDTH, HEIGHT, ACROSS, DOWN = 190, 44, 250, 70  # of a box, and from box to box


@dataclass(frozen=True)
class Node:
    """A part of a model: its name in the graph, what it is, and what it says of itself."""

    name: str
    kind: Kind
    label: str


@dataclass(frozen=True)
class ModelGraph:
    """Parts of a model and what goes into what; a notebook draws it.

    Attributes:
        nodes: covariates, latents, the transition, gains and observations.
        edges: pairs of names, from what is read to what reads it. One from an observation to the transition is of the
            past, as is that of the transition to itself.
    """

    nodes: tuple[Node, ...]
    edges: tuple[tuple[str, str], ...]

    def to_mermaid(self) -> str:
        """Return the graph in the language of Mermaid, which GitHub and many notebooks draw."""
        number = {node.name: f"n{k}" for k, node in enumerate(self.nodes)}
        shapes = {"latent": '(["{}"])', "observation": '[["{}"]]'}
        lines = []
        for node in self.nodes:
            text = _text(node).replace('"', "'")
            lines.append("  " + number[node.name] + shapes.get(node.kind, '["{}"]').format(text))
        lines += [f"  {number[one]} --> {number[other]}" for one, other in self.edges]
        return "\n".join(["flowchart LR", *lines])

    def to_dot(self) -> str:
        """Return the graph in the language of Graphviz."""
        shapes = {"latent": "ellipse", "observation": "box, peripheries=2"}
        lines = []
        for node in self.nodes:
            text = _text(node).replace('"', "'")
            lines.append(f'  "{node.name}" [label="{text}", shape={shapes.get(node.kind, "box")}];')
        lines += [f'  "{one}" -> "{other}";' for one, other in self.edges]
        return "\n".join(["digraph {", "  rankdir=LR;", *lines, "}"])

    def __str__(self) -> str:
        return "\n".join(f"{one} -> {other}" for one, other in self.edges)

    def __repr__(self) -> str:
        return f"ModelGraph({len(self.nodes)} parts, {len(self.edges)} edges)"

    def _repr_svg_(self) -> str:
        places, counts = {}, dict.fromkeys(COLUMNS.values(), 0)
        heads = sum(node.kind == "observation" for node in self.nodes)
        for node in self.nodes:
            column = COLUMNS[node.kind]
            below = DOWN * heads - DOWN // 2 if node.kind == "gain" else 0  # edges to the heads run above
            places[node.name] = (20 + ACROSS * column, 40 + DOWN * counts[column] + below)
            counts[column] += 1
        rows = max(*counts.values(), heads + counts[COLUMNS["gain"]])
        lines = [_arrow(places[one], places[other]) for one, other in self.edges]
        for node in self.nodes:
            x, y = places[node.name]
            rounded = HEIGHT // 2 if node.kind == "latent" else 4
            lines.append(
                f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="{rounded}" fill="{COLOURS[node.kind]}" '
                'stroke="#444"/>'
            )
            for text, below in ((node.name, 18), (node.label, 35)):
                cut = text if len(text) <= 27 else f"{text[:26]}…"
                lines.append(f'<text x="{x + WIDTH / 2}" y="{y + below}" text-anchor="middle">{escape(cut)}</text>')
        size = f'width="{40 + ACROSS * 3 + WIDTH}" height="{60 + DOWN * rows}"'
        head = '<marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        arrow = f'<defs>{head}<path d="M0 0 8 4 0 8z" fill="#444"/></marker></defs>'
        style = 'font-family="sans-serif" font-size="12"'
        return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>{arrow}{"".join(lines)}</svg>'


def graph(model: Any) -> ModelGraph:
    """Return the declared parts of a model, and what goes into what; see `LatentRNN.graph`."""
    read = [(item, _covariate(item)) for item in model.inputs]
    observed = list(model.observations.items())
    stimuli = [head.gain.stimulus for _, head in observed if head.gain is not None]
    named = dict.fromkeys([*(name for _, name in read), *stimuli])
    names = [site.name for site in model.latent_sites()]
    nodes = [Node(name, "covariate", "covariate") for name in named]
    nodes += [Node(name, "latent", type(model.latent).__name__) for name in names]
    nodes.append(Node("transition", "transition", repr(model.transition)))
    edges = [(name, "transition") for _, name in read]
    edges += [(name, "transition") for name in names if name != sites.STATES]
    edges.append(("transition", "transition"))
    seen = "transition"
    if sites.STATES in names:
        edges += [("transition", sites.STATES), (sites.STATES, "transition")]
        edges.remove(("transition", "transition"))
        seen = sites.STATES
    for name, head in observed:
        nodes.append(Node(name, "observation", repr(head)))
        edges.append((seen, name))
        if head.gain is not None:
            gain = f"{name}.gain"
            nodes.append(Node(gain, "gain", type(head.gain).__name__))
            edges += [(head.gain.stimulus, gain), (seen, gain), (gain, name)]
        if head.feedback is not None:
            edges.append((name, "transition" if "transition" in head.feedback.into else name))
    return ModelGraph(tuple(nodes), tuple(dict.fromkeys(edges)))


def _covariate(item: str | Feature) -> str:
    return item if isinstance(item, str) else str(getattr(item, "covariate", type(item).__name__))


def _text(node: Node) -> str:
    return f"{node.name}: {node.label}"


def _arrow(one: tuple[int, int], other: tuple[int, int]) -> str:
    """Return the line from one box to another; what goes back goes above both."""
    (x, y), (to_x, to_y) = one, other
    if to_x > x:
        path = f"M{x + WIDTH} {y + HEIGHT / 2} L{to_x} {to_y + HEIGHT / 2}"
    elif one == other:
        path = f"M{x + WIDTH - 40} {y} C{x + WIDTH - 30} {y - 34} {x + 30} {y - 34} {x + 40} {y}"
    else:
        path = (
            f"M{x + WIDTH / 2} {y} C{x + WIDTH / 2} {y - 40} {to_x + WIDTH / 2} {to_y - 40} {to_x + WIDTH / 2} {to_y}"
        )
    return f'<path d="{path}" fill="none" stroke="#444" marker-end="url(#tip)"/>'
