"""The chart: entries per second as bars, drawn as SVG by hand. Reads at a glance, without the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

from attrs import frozen

from benchmarks.limits import FILE_WRITE
from walrus_core.cli.measure import rate_text

PANELS: Mapping[str, str] = {
    "append-256": "Append, one entry a call",
    "batch-256": "Append, 1,000 entries a call",
    "read-next-256": "Read, one entry a call",
    "read-batch-256": "Read, many entries a call",
}
SHOWN: Mapping[str, str] = {
    "mmap, CRC-32C": "walrus mmap, CRC-32C",
    "mmap": "walrus mmap",
    "fd, CRC-32C": "walrus fd, CRC-32C",
    "fd": "walrus fd",
    "LMDB": "LMDB",
    "LMDB, putmulti": "LMDB, putmulti",
    "RocksDB": "RocksDB",
    "SQLite": "SQLite",
    "diskcache.Deque": "diskcache",
    "persist-queue": "persist-queue",
    FILE_WRITE: "plain file.write",
}
"""Contenders in the chart and what it calls them; the report has all of them."""
COLOURS = {"ours": "#0f766e", "database": "#94a3b8", "limit": "#e2c48d"}

WIDTH = 860
LABEL_WIDTH = 170
VALUE_WIDTH = 90
MARGIN = 24
FOOT = 36
HEAD = 84
ROW = 22
BAR = 15
PANEL_HEAD = 34
PANEL_GAP = 16
FONT = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"


@frozen(kw_only=True)
class Row:
    """One bar."""

    label: str
    group: str
    value: float
    low: float
    high: float


def panel_rows(work: dict[str, Any]) -> list[Row]:
    """Return the bars of a work, the longest first."""
    rows = [
        Row(
            label=SHOWN[one["name"]],
            group=one["group"],
            value=one["median"],
            low=one["low"],
            high=one["high"],
        )
        for one in work["contenders"]
        if one["name"] in SHOWN
    ]
    return sorted(rows, key=lambda row: -row.value)


def draw(figures: dict[str, Any]) -> str:
    """Return the chart as an SVG document; panels whose works did not run are not there."""
    works = {work["name"]: work for work in figures["works"]}
    panels = [
        (title, rows) for name, title in PANELS.items() if name in works and (rows := panel_rows(works[name]))
    ]
    height = HEAD + sum(PANEL_HEAD + ROW * len(rows) + PANEL_GAP for _, rows in panels) + FOOT
    told = "; ".join(f"{title}: {rows[0].label} {rate_text(rows[0].value)}" for title, rows in panels)
    body = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img" aria-labelledby="title about" font-family="{FONT}">',
        '<title id="title">Entries per second</title>',
        f'<desc id="about">{escape(f"Longest bars. {told}.")}</desc>',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        *heading(figures),
    ]
    top = HEAD
    for title, rows in panels:
        body += draw_panel(title, rows, top)
        top += PANEL_HEAD + ROW * len(rows) + PANEL_GAP
    body += [footer(figures, height - 14), "</svg>"]
    return "\n".join(body) + "\n"


def heading(figures: dict[str, Any]) -> list[str]:
    """Return title, what the bars mean, and the colours."""
    about = (
        "Entries of 256 B, one thread. Longer is faster; the thin line is the range of all rounds, "
        "the bar their median."
    )
    keys = (("ours", "walrus"), ("database", "other libraries"), ("limit", "no guarantees at all"))
    lines = [
        text(MARGIN, 30, "Entries per second", size=19, weight=600),
        text(MARGIN, 50, about, size=12, fill="#475569"),
    ]
    for number, (group, label) in enumerate(keys):
        left = MARGIN + number * 150
        lines.append(rectangle(left, 62, 12, 12, COLOURS[group]))
        lines.append(text(left + 18, 72, label, size=12, fill="#475569"))
    return lines


def footer(figures: dict[str, Any], base: float) -> str:
    """Return what it was measured on, in small print."""
    machine = figures["machine"]
    told = (
        f"{figures['run']['rounds']} rounds on {machine['processor']}, {machine['cores']} cores, "
        f"{figures['file_system']['kind']}, {machine['python']}, {figures['started'][:10]}"
    )
    return text(MARGIN, base, told, size=11, fill="#64748b")


def draw_panel(title: str, rows: Sequence[Row], top: float) -> list[str]:
    """Return one work: its title and its bars, on a scale of its own from zero."""
    lines = [text(MARGIN, top + 22, title, size=14, weight=600)]
    room = WIDTH - 2 * MARGIN - LABEL_WIDTH - VALUE_WIDTH
    most = max(row.high for row in rows)
    left = MARGIN + LABEL_WIDTH
    for number, row in enumerate(rows):
        at = top + PANEL_HEAD + number * ROW
        middle = at + BAR / 2
        weight = 600 if row.group == "ours" else 400
        ends = [left + room * value / most for value in (row.low, row.high)]
        lines += [
            text(left - 10, middle + 4, row.label, size=12, weight=weight, anchor="end"),
            rectangle(left, at, max(room * row.value / most, 1), BAR, COLOURS[row.group]),
            f'<path d="M{ends[0]:.1f} {middle}H{ends[1]:.1f}" stroke="#334155" stroke-width="1"/>',
            text(max(ends[1], left + 1) + 8, middle + 4, rate_text(row.value), size=12, weight=weight),
        ]
    return lines


def text(
    left: float,
    base: float,
    content: str,
    *,
    size: int,
    weight: int = 400,
    fill: str = "#0f172a",
    anchor: str = "start",
) -> str:
    """Return a line of text with its base line at ``base``."""
    return (
        f'<text x="{left:.1f}" y="{base:.1f}" font-size="{size}" font-weight="{weight}" fill="{fill}" '
        f'text-anchor="{anchor}">{escape(content)}</text>'
    )


def rectangle(left: float, top: float, width: float, height: float, fill: str) -> str:
    """Return a filled rectangle."""
    return (
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" rx="2" fill="{fill}"/>'
    )
