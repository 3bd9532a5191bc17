"""The figures as a picture. Needs matplotlib: ``pip install --group bench``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.contenders import Contender
from benchmarks.measuring import Measurement
from benchmarks.report import FIGURES, figure_of

# Those that tell most, and whether more is better.
SHOWN = {
    ("one stream", "GB/s"): "One upload at a time\nGB/s (more is better)",
    ("one stream", "CPU s/GiB"): "What it costs\nCPU s/GiB (less is better)",
    ("small uploads", "per s"): "Uploads of 4 KiB\nper second (more is better)",
    ("small uploads", "CPU µs"): "What one costs\nCPU µs (less is better)",
}

OUR_COLOUR = "#1f6f8b"
THEIR_COLOUR = "#b8c4c9"


def draw(stem: Path, measurements: Mapping[str, Sequence[Measurement]], contenders: Sequence[Contender]) -> list[Path]:
    """Write ``stem``.png and ``stem``.svg, a row of bars for each storage, and return their paths.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Picture

    shown = [figure for figure in FIGURES if (figure.load, figure.unit) in SHOWN]
    # Drawn from below.
    servers = [it for it in reversed(contenders) if it.keeps]
    height = 0.6 + len(measurements) * (1.1 + 0.28 * len(servers))
    # Equal figures give an equal file.
    with matplotlib.rc_context({"svg.hashsalt": "tusd_py", "font.size": 9}):
        picture = Picture(figsize=(13, height), layout="constrained")
        FigureCanvasSVG(picture)
        axes = picture.subplots(len(measurements), len(shown), squeeze=False)
        for row, (storage, measured) in zip(axes, measurements.items(), strict=True):
            for place, figure in zip(row, shown, strict=True):
                values = [figure_of(measured, it.name, figure) for it in servers]
                colours = [OUR_COLOUR if it.is_ours else THEIR_COLOUR for it in servers]
                bars = place.barh([it.name for it in servers], [value or 0.0 for value in values], color=colours)
                labels = ["" if value is None else figure.form.format(value) for value in values]
                place.bar_label(bars, labels=labels, padding=3)
                place.set_title(SHOWN[figure.load, figure.unit], fontsize=9)
                place.spines[["top", "right"]].set_visible(False)
                place.margins(x=0.2)
                if place is not row[0]:
                    place.set_yticklabels([])
            row[0].set_ylabel(f"data on {storage}")
        paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "svg")]
        picture.savefig(paths[0], dpi=150)
        picture.savefig(paths[1], metadata={"Date": None})
    return paths
