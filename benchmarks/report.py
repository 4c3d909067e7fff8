"""The report in Markdown, made of the figures (``figures.py``) and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Optional

from benchmarks.model import MIB_PER_SECOND, MILLISECONDS, OURS, PER_SECOND
from walrus_core.cli.measure import rate_text, three_digits

TIMES = "\N{MULTIPLICATION SIGN}"
NOT_JUDGED = "\N{EN DASH}"


def figure_text(value: float, unit: str) -> str:
    """Return a figure with its unit, three digits."""
    if unit == PER_SECOND:
        return rate_text(value)
    if unit in (MIB_PER_SECOND, MILLISECONDS):
        return f"{three_digits(value)} {unit}"
    return three_digits(value)


def display_name(name: str, group: str) -> str:
    """Return a contender's name for the report: ours stand out, with the project's name before them."""
    if group != OURS:
        return name
    return f"**{name}**" if name.startswith("import") else f"**walrus {name}**"


def table(heading: Sequence[str], rows: Iterable[Sequence[str]], numbers: range) -> list[str]:
    """Return the lines of a table; the columns in ``numbers`` are set to the right."""
    rule = ["---:" if at in numbers else "---" for at in range(len(heading))]
    return [f"| {' | '.join(cells)} |" for cells in (heading, rule, *rows)]


def markdown(figures: dict[str, Any]) -> str:
    """Return the whole report, without a title."""
    lines = [*about(figures), ""]
    if any(work["bars"] for work in figures["works"]):
        lines += ["### What was to be reached", "", *bars_table(figures), ""]
    if figures["run"]["factor"] < 1:
        lines += ["Sizes were below the default, so nothing is judged.", ""]
    for work in figures["works"]:
        lines += [f"### {work['name']}: {work['title']}", ""]
        if work["contenders"]:
            lines += work_table(work)
        else:
            lines += ["Nothing of this ran."]
        lines += ["", work["note"], ""] if work["note"] else [""]
    lines += left_out(figures)
    return "\n".join(lines).rstrip() + "\n"


def about(figures: dict[str, Any]) -> list[str]:
    """Return what was measured, where, when and how."""
    machine, where, run = figures["machine"], figures["file_system"], figures["run"]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(figures["versions"].items()))
    size = "full size" if run["full"] else "the default size"
    if run["factor"] != 1:
        size += f" {TIMES} {run['factor']:g}"
    return [
        f"- Machine: {machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory_bytes'] / 2**30:.1f} GiB of memory; {machine['system']} {machine['kernel']}; "
        f"{where['kind']} on {where['device']}; {machine['python']}; frame code {machine['frame_code']}.",
        f"- Versions: {versions}.",
        f"- {figures['started']}, {figures['seconds']:.0f} s in all: {run['rounds']} interleaved rounds "
        f"after one to warm up, {size}; {run['warmed_bytes'] / 2**20:,.0f} MiB of memory warmed up before.",
    ]


def bars_table(figures: dict[str, Any]) -> list[str]:
    """Return the bars of all works with what was measured."""
    rows = []
    for work in figures["works"]:
        groups = {one["name"]: one["group"] for one in work["contenders"]}
        for bar in work["bars"]:
            measured = "not measured"
            if bar["measured"] is not None:
                spread = bar["measured"]
                median, low, high = (
                    bar_value(bar, spread[name], work["unit"]) for name in ("median", "low", "high")
                )
                measured = f"{median} ({low} to {high})"
            rows.append(
                [
                    work["name"],
                    display_name(bar["ours"], OURS),
                    bar_text(bar, work["unit"], groups.get(bar["against"])),
                    measured,
                    {True: "yes", False: "no", None: NOT_JUDGED}[bar["met"]],
                ]
            )
    return table(("work", "contender", "to reach", "measured: median (range)", "met"), rows, range(3, 4))


def bar_text(bar: dict[str, Any], unit: str, against_group: Optional[str]) -> str:
    """Return what a bar asks for, as a phrase."""
    least = bar["at_least"] is not None
    phrase = f"at least {bar['at_least']:g}" if least else f"at most {bar['at_most']:g}"
    if bar["against"] is not None:
        phrase += f" {TIMES} {display_name(bar['against'], against_group or '')}"
    elif bar["fact"] is not None:
        phrase = f"{bar['fact']}: {phrase}"
    else:
        phrase += f" {unit}"
    return f"{phrase} (in a full run)" if bar["full_only"] else phrase


def bar_value(bar: dict[str, Any], value: float, unit: str) -> str:
    """Return a measured value in the unit of its bar."""
    if bar["against"] is not None:
        return f"{three_digits(value)} {TIMES}"
    if bar["fact"] is not None:
        return fact_text(value)
    return figure_text(value, unit)


def work_table(work: dict[str, Any]) -> list[str]:
    """Return all contenders of a work: figure, range, ratios to the references, time, other facts."""
    references = [
        name for name in work["references"] if any(name in one["ratios"] for one in work["contenders"])
    ]
    heading = ["", "median", "range", *(f"{TIMES} {name}" for name in references), "a round took"]
    has_facts = any(one["facts"] for one in work["contenders"])
    heading += ["besides"] if has_facts else []
    rows = []
    for one in work["contenders"]:
        low, high = (figure_text(one[name], work["unit"]) for name in ("low", "high"))
        row = [
            display_name(one["name"], one["group"]),
            figure_text(one["median"], work["unit"]),
            f"{low} to {high}",
            *(ratio_text(one, name) for name in references),
            f"{one['seconds']:.2g} s",
        ]
        row += [facts_text(one)] if has_facts else []
        rows.append(row)
    return table(heading, rows, range(1, 4 + len(references)))


def ratio_text(one: dict[str, Any], reference: str) -> str:
    """Return the median of a ratio; nothing for the reference itself."""
    if one["name"] == reference or reference not in one["ratios"]:
        return ""
    return three_digits(one["ratios"][reference]["median"])


def facts_text(one: dict[str, Any]) -> str:
    """Return the other facts of a contender, the most of all rounds."""
    return "; ".join(f"{fact}: {fact_text(value)}" for fact, value in one["facts"].items())


def fact_text(value: float) -> str:
    """Return a fact: a count as one, else three digits."""
    return f"{value:,.0f}" if value == int(value) else three_digits(value)


def left_out(figures: dict[str, Any]) -> list[str]:
    """Return what did not run, by reason."""
    if not figures["left_out"]:
        return []
    by_reason: dict[str, list[str]] = {}
    for out in figures["left_out"]:
        name = out["work"] if out["contender"] is None else f"{out['work']}/{out['contender']}"
        reason = f"failed: {out['reason']}" if out["failed"] else out["reason"]
        by_reason.setdefault(reason, []).append(name)
    return [
        "### Left out",
        "",
        *(f"- {' '.join(reason.split())}: {'; '.join(names)}." for reason, names in by_reason.items()),
    ]
