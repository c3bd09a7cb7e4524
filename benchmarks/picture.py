"""Draws bars as SVG."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

LABEL_WIDTH, BAR_WIDTH, VALUE_WIDTH = 210, 190, 80
PANEL_WIDTH = BAR_WIDTH + VALUE_WIDTH
ROW_HEIGHT, TOP, MARGIN = 30, 58, 16
OURS, OTHERS, TEXT, PAPER = "#1a6fb5", "#a9b4be", "#22272b", "#ffffff"


@dataclass(frozen=True, slots=True)
class Panel:
    """One quantity, a figure for each bar."""

    title: str
    figures: Sequence[float]


def bars(names: Sequence[str], are_ours: Sequence[bool], panels: Sequence[Panel]) -> str:
    """Return an SVG with a row for each name and a column for each panel."""
    width = MARGIN * 2 + LABEL_WIDTH + PANEL_WIDTH * len(panels)
    height = TOP + ROW_HEIGHT * len(names) + MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" font-family="sans-serif" font-size="13" '
            f'fill="{TEXT}" role="img">',
            f'<rect width="{width}" height="{height}" fill="{PAPER}"/>',
            *_labels(names, are_ours),
            *(line for n, panel in enumerate(panels) for line in _panel(n, panel, are_ours)),
            "</svg>\n",
        ]
    )


def _labels(names: Sequence[str], are_ours: Sequence[bool]) -> Iterator[str]:
    for row, (name, is_ours) in enumerate(zip(names, are_ours, strict=True)):
        weight = ' font-weight="bold"' if is_ours else ""
        x, y = MARGIN + LABEL_WIDTH - 12, _middle(row)
        yield f'<text x="{x}" y="{y}" text-anchor="end"{weight}>{escape(name)}</text>'


def _panel(number: int, panel: Panel, are_ours: Sequence[bool]) -> Iterator[str]:
    left = MARGIN + LABEL_WIDTH + PANEL_WIDTH * number
    yield f'<text x="{left}" y="{TOP - 26}" font-weight="bold">{escape(panel.title)}</text>'
    most = max(panel.figures)
    for row, (figure, is_ours) in enumerate(zip(panel.figures, are_ours, strict=True)):
        length, colour = figure / most * BAR_WIDTH, OURS if is_ours else OTHERS
        yield (
            f'<rect x="{left}" y="{_middle(row) - 15}" width="{length:.1f}" height="20" '
            f'fill="{colour}"/>'
        )
        yield f'<text x="{left + length + 6:.1f}" y="{_middle(row)}">{figure:,.0f}</text>'


def _middle(row: int) -> int:
    """Return the base line of a row's text."""
    return TOP + ROW_HEIGHT * row + 10
