"""From measurements to what people read: medians, ratios, tables in Markdown, and the place for them in a page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.contenders import Contender
from benchmarks.measured_server import GIB, MIB
from benchmarks.measuring import Measurement
from benchmarks.memory_growth import CROWDS, Growth

BEGIN = "<!-- begin: written by python -m benchmarks -->"
END = "<!-- end: written by python -m benchmarks -->"

NOTHING = "–"


@dataclass(frozen=True)
class Figure:
    """One column: ``of`` makes a number of each measurement of ``load``, ``form`` writes the median of them."""

    load: str
    unit: str
    of: Callable[[Measurement], float]
    form: str
    has_ratio: bool = True


def _gb_per_second(it: Measurement) -> float:
    return it.bytes / it.seconds / 1e9


def _cpu_per_gib(it: Measurement) -> float:
    return it.cpu_seconds / (it.bytes / GIB)


def _peak(it: Measurement) -> float:
    return it.peak_memory / MIB


def _per_second(it: Measurement) -> float:
    return it.requests / it.seconds


def _cpu_each(it: Measurement) -> float:
    return it.cpu_seconds / it.requests * 1e6


FIGURES = (
    Figure("one stream", "GB/s", _gb_per_second, "{:.2f}"),
    Figure("one stream", "CPU s/GiB", _cpu_per_gib, "{:.2f}"),
    Figure("one stream", "peak MiB", _peak, "{:.0f}", has_ratio=False),
    Figure("16 streams", "GB/s", _gb_per_second, "{:.2f}"),
    Figure("16 streams", "CPU s/GiB", _cpu_per_gib, "{:.2f}"),
    Figure("16 streams", "peak MiB", _peak, "{:.0f}", has_ratio=False),
    Figure("small uploads", "per s", _per_second, "{:,.0f}"),
    Figure("small uploads", "CPU µs", _cpu_each, "{:,.0f}"),
    Figure("HEAD", "per s", _per_second, "{:,.0f}"),
    Figure("HEAD", "CPU µs", _cpu_each, "{:,.0f}"),
)


def figure_of(measurements: Iterable[Measurement], server: str, figure: Figure) -> float | None:
    """Return the median over the rounds of one server, ``None`` where it was not measured."""
    values = [figure.of(it) for it in measurements if it.server == server and it.load == figure.load]
    return median(values) if values else None


def build_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown that can also be read as it is: a name in each row, and numbers."""
    lines = [tuple(header), *map(tuple, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]

    def row(cells: Sequence[str]) -> str:
        numbers = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return "| " + " | ".join([cells[0].ljust(widths[0]), *numbers]) + " |"

    rule = "| " + " | ".join(["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]) + " |"
    return "\n".join([row(lines[0]), rule, *map(row, lines[1:])])


def build_figures(measurements: Sequence[Measurement], contenders: Iterable[Contender]) -> str:
    """Return the table of medians of what was measured on one storage."""
    rows = []
    for contender in contenders:
        values = [figure_of(measurements, contender.name, figure) for figure in FIGURES]
        cells = (
            NOTHING if value is None else figure.form.format(value)
            for figure, value in zip(FIGURES, values, strict=True)
        )
        rows.append((contender.name, *cells))
    return build_table(_header("server", FIGURES), rows)


def build_ratios(measurements: Sequence[Measurement], contenders: Sequence[Contender]) -> str:
    """Return the table of our medians divided by those of each peer, of equally many workers or more of ours."""
    figures = [figure for figure in FIGURES if figure.has_ratio]
    ours = [it for it in contenders if it.is_ours and it.is_like_for_like]
    peers = [it for it in contenders if not it.is_ours and it.keeps]
    rows = [
        (f"{mine.name} ÷ {peer.name}", *(_ratio(measurements, mine.name, peer.name, figure) for figure in figures))
        for peer in peers
        for mine in ours
        if mine.workers >= peer.workers
    ]
    return build_table(_header("ours ÷ theirs", figures), rows) if rows else ""


def build_growth(growths: Sequence[Growth], contenders: Iterable[Contender]) -> str:
    """Return the table of how far each server grew."""
    told = {(it.server, it.crowd): it for it in growths}
    crowds = [next((it for it in growths if it.crowd == crowd), None) for crowd in CROWDS]
    header = [
        NOTHING if it is None else (it.crowd if it.crowd.startswith("16") else f"{it.count:,} {it.crowd}")
        for it in crowds
    ]
    rows = []
    for contender in (it for it in contenders if it.keeps):
        of_this = [told.get((contender.name, crowd)) for crowd in CROWDS]
        before = [it.before for it in of_this if it is not None]
        cells = (NOTHING if it is None else f"+{(it.peak - it.before) / MIB:.1f}" for it in of_this)
        rows.append((contender.name, f"{median(before) / MIB:.0f}" if before else NOTHING, *cells))
    return build_table(("server, MiB", "before", *header), rows)


def tell_spread(measurements: Sequence[Measurement], contenders: Iterable[Contender]) -> str:
    """Return a sentence about how far apart the rounds were, empty where there was only one."""
    servers = [it.name for it in contenders if it.keeps]
    spreads = []
    for figure in FIGURES:
        for server in servers:
            values = [figure.of(it) for it in measurements if it.server == server and it.load == figure.load]
            if len(values) > 1 and median(values):
                spreads.append((max(values) - min(values)) / median(values))
    if not spreads:
        return ""
    return (
        f"Between the fastest and the slowest round of a figure lay {median(spreads):.0%} of it in the middle of all "
        f"figures, {max(spreads):.0%} at most."
    )


def tell_generator(measurements: Sequence[Measurement], contenders: Iterable[Contender]) -> str:
    """Return a sentence about how busy the load itself was at most; near 100 % it is what is measured."""
    servers = {it.name for it in contenders if it.keeps}
    busy = {it.generator_cpu_seconds / it.seconds: it for it in measurements if it.server in servers}
    if not busy:
        return ""
    most = busy[max(busy)]
    return f"The load itself took {max(busy):.0%} of one core at most ({most.load} of {most.server})."


def place(page: str, text: str) -> str:
    """Return ``page`` with ``text`` between its two marks.

    Raises:
        ValueError: the page does not have them.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page has no place for the figures; write two lines into it: {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{text.strip()}\n\n{END}{after}"


def _header(first: str, figures: Iterable[Figure]) -> tuple[str, ...]:
    """Return the names of columns, with that of the load where a new one begins."""
    names, last = [first], ""
    for figure in figures:
        names.append(figure.unit if figure.load == last else f"{figure.load}: {figure.unit}")
        last = figure.load
    return tuple(names)


def _ratio(measurements: Iterable[Measurement], mine: str, theirs: str, figure: Figure) -> str:
    measurements = tuple(measurements)
    one, other = figure_of(measurements, mine, figure), figure_of(measurements, theirs, figure)
    return NOTHING if one is None or not other else f"{one / other:.2f}"
