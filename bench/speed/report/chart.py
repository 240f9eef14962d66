"""Draws a bar chart as SVG that is legible on light and dark pages."""

from collections.abc import Mapping, Sequence
from typing import Final
from xml.sax.saxutils import escape

_WIDTH: Final = 720
_LEFT: Final = 128
_RIGHT: Final = 64
_BAR: Final = 15
_GAP: Final = 12
_TOP: Final = 66
_FOOT: Final = 16
_CUT: Final = 6.0
"""A bar longer than this multiple of the median is cut, so that the other bars stay visible."""

_STYLE: Final = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600; font-size: 15px }
.small { font-size: 12px; fill: #57606a }
.first { fill: #7b8794 } .second { fill: #c3cbd3 }
.ours .first { fill: #1f6feb } .ours .second { fill: #85b7ff }
.cut { fill: #ffffff }
@media (prefers-color-scheme: dark) {
 text { fill: #e6edf3 } .small { fill: #9ba7b4 } .second { fill: #4b5661 }
 .ours .second { fill: #1c4a8a } .cut { fill: #0d1117 }
}"""


def bars(title: str, series: Sequence[str], figures: Mapping[str, Sequence[float | None]], ours: str) -> str:
    """Returns a chart with two bars per name, one for each of `series`, sorted by the first. None has no bar."""
    names = sorted(figures, key=lambda name: next(figure for figure in figures[name] if figure is not None))
    ordered = sorted(figure for of_name in figures.values() for figure in of_name if figure is not None)
    longest = max((figure for figure in ordered if figure <= _CUT * ordered[len(ordered) // 2]), default=1.0)
    scale = (_WIDTH - _LEFT - _RIGHT) / longest
    row = 2 * _BAR + _GAP
    height = _TOP + row * len(names) + _FOOT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<text class="title" x="0" y="18">{escape(title)}</text>',
    ]
    for number, (name, kind) in enumerate(zip(series, ("first", "second"), strict=True)):
        x = _LEFT + 150 * number
        parts.append(f'<g class="ours"><rect class="{kind}" x="{x}" y="33" width="12" height="12"/></g>')
        parts.append(f'<text class="small" x="{x + 18}" y="44">{escape(name)}</text>')
    for place, name in enumerate(names):
        y = _TOP + row * place
        parts.append(f'<g class="{"ours" if name == ours else "peer"}">')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + _BAR + 4}" text-anchor="end">{escape(name)}</text>')
        for number, figure in enumerate(figures[name]):
            if figure is None:
                continue
            parts += _bar(y + number * _BAR, figure, min(figure, longest) * scale, ("first", "second")[number])
            if figure > longest:
                parts.append(_cut(y + number * _BAR))
        parts.append("</g>")
    return "\n".join([*parts, "</svg>"]) + "\n"


def _bar(y: int, figure: float, length: float, kind: str) -> list[str]:
    parts = [f'<rect class="{kind}" x="{_LEFT}" y="{y}" width="{length:.1f}" height="{_BAR - 1}"/>']
    parts.append(f'<text class="small" x="{_LEFT + length + 6:.1f}" y="{y + 11}">{figure:,.0f}</text>')
    return parts


def _cut(y: int) -> str:
    """Returns a gap that marks a cut bar."""
    return f'<path class="cut" d="M{_WIDTH - _RIGHT - 28} {y + _BAR}l6-{_BAR + 1}h5l-6 {_BAR + 1}z"/>'
