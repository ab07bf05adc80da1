"""One picture of all rows, as SVG: how far each is from its goal."""

from __future__ import annotations

from html import escape
from typing import List, Sequence

from .measure import Row

# pixels: a row's height, the bars' left edge, twice what the goal is to its right, the picture's width
LINE, NAMES, BARS, WIDTH = 22, 400, 260, 800


def drawn(rows: Sequence[Row], made_on: str) -> str:
    """Return the picture: a bar for each row, the goal a line; the shorter bar is the better one."""
    rows = [row for row in rows if row.goal]
    height = LINE * (len(rows) + 3)
    goal_at = NAMES + BARS // 2
    parts: List[str] = [
        '<svg xmlns="http://www.w3.org/2000/svg" width="{}" height="{}" font-family="sans-serif" font-size="12">'.format(
            WIDTH, height
        ),
        '<rect width="100%" height="100%" fill="white"/>',
        '<text x="8" y="16">What each figure is of its goal: a bar that stays left of the line meets it ({})</text>'.format(
            escape(made_on)
        ),
    ]
    for number, row in enumerate(rows, 1):
        top = LINE * number + 8
        length = min(BARS, round(BARS / 2 * _share_of_goal(row)))
        parts.append('<text x="8" y="{}">{}</text>'.format(top + 14, escape(row.name)))
        parts.append(
            '<rect x="{}" y="{}" width="{}" height="{}" fill="{}"/>'.format(
                NAMES, top + 2, length, LINE - 6, "#3a7d44" if row.met else "#c1666b"
            )
        )
        figure = "{:g} {} ({})".format(row.value, row.unit, row.goal)
        parts.append('<text x="{}" y="{}">{}</text>'.format(NAMES + BARS + 8, top + 14, escape(figure)))
    parts.append(
        '<line x1="{0}" y1="{1}" x2="{0}" y2="{2}" stroke="black"/>'.format(
            goal_at, LINE + 4, LINE * (len(rows) + 1) + 8
        )
    )
    return "\n".join([*parts, "</svg>", ""])


def _share_of_goal(row: Row) -> float:
    """1 is the goal itself; less is better, whichever way the row counts."""
    limit = float(row.goal.split()[-1])
    share = row.value / limit
    return max(0.0, share if row.goal.startswith("at most") else 1 / share)
