"""tusd_py beside other tus servers, under the same load: ``python -m benchmarks``.

docs/benchmarks.md tells what is measured, and how the figures are to be read.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.util import find_spec
from os.path import relpath
from pathlib import Path

import click

from benchmarks import contenders as known
from benchmarks.contenders import Contender
from benchmarks.machine import Machine, storage_of, this_machine
from benchmarks.measured_server import GIB, KIB, MIB, allow_open_files, build_size
from benchmarks.measuring import LOADS, Measurement, MeasurementFailed, Sizes, measure
from benchmarks.memory_growth import CROWDS, Growth, measure_growth
from benchmarks.report import FIGURES, build_figures, build_growth, build_ratios, place, tell_generator, tell_spread
from benchmarks.slow_uploads import FILES_PER_UPLOAD
from benchmarks.started_server import NotStarted, started_server

SHARED_MEMORY = Path("/dev/shm")

# What files beside the data take, and the rest of the system must have.
SPARE = 256 * MIB


@dataclass
class Results:
    """Everything that was measured, and why something was not (``left_out``)."""

    sizes: Sizes
    rounds: int
    machine: Machine = field(default_factory=this_machine)
    begun: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    contenders: list[Contender] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)
    growths: list[Growth] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def leave_out(self, what: str, reason: str) -> None:
        """Note, and say at once, that something is not measured."""
        self.left_out.append(f"{what} is left out: {' '.join(reason.split())[:400]}")
        click.echo(self.left_out[-1], err=True)

    def by_storage(self) -> dict[str, list[Measurement]]:
        """Return the measurements of each storage, in the order in which they were made."""
        storages = dict.fromkeys(it.storage for it in self.measurements)
        return {storage: [it for it in self.measurements if it.storage == storage] for storage in storages}

    def build_json(self) -> str:
        """Return all of it, without commands: those have paths of this machine in them."""
        servers = [{"name": it.name, "workers": it.workers, "version": it.version} for it in self.contenders]
        return json.dumps({**asdict(self), "contenders": servers}, indent=1, ensure_ascii=False) + "\n"

    def build_text(self) -> str:
        """Return all tables with what must be known to read them, in Markdown."""
        # Rows of one server differ by what follows a comma.
        known = {it.name.partition(",")[0]: it.version for it in self.contenders if it.version}
        versions = ", ".join(f"{name} {version}" for name, version in known.items())
        parts = [
            f"Measured on {self.begun[:10]}: {self.machine}.",
            versions and f"{versions}.",
            f"Medians of {self.rounds} rounds, in turns; {build_size(self.sizes.streamed)} in streams, "
            f"{self.sizes.uploads:,} small uploads, {self.sizes.heads:,} HEAD.",
        ]
        for storage, measured in self.by_storage().items():
            parts += [
                f"### Data on {storage}",
                build_figures(measured, self.contenders),
                " ".join(
                    filter(None, (tell_spread(measured, self.contenders), tell_generator(measured, self.contenders)))
                ),
            ]
            parts += [build_ratios(measured, self.contenders)]
        if self.growths:
            parts += ["### Memory", build_growth(self.growths, self.contenders)]
        parts += [f"{line}." for line in self.left_out]
        return "\n\n".join(filter(None, parts))


def try_all(results: Results, folder: Path) -> None:
    """Start every server once, and leave out those that do not."""
    alive = []
    for contender in results.contenders:
        try:
            with started_server(contender, folder):
                alive.append(contender)
        except (NotStarted, OSError) as error:
            results.leave_out(contender.name, getattr(error, "strerror", None) or str(error))
    results.contenders = alive


def run_rounds(results: Results, folder: Path, storage: str, tell: Callable[[str], object]) -> None:
    """Measure everything on one storage: each load in rounds, in each of which all have their turn.

    Who fails at a load once is not measured with it again.
    """
    for load in LOADS:
        failed: set[str] = set()
        for number in range(1, results.rounds + 1):
            for contender in results.contenders:
                if contender.name in failed:
                    continue
                try:
                    measured = measure(contender, load, results.sizes, folder, storage, number)
                except MeasurementFailed as error:
                    failed.add(contender.name)
                    results.leave_out(f"{contender.name}, {load} on {storage},", str(error))
                    continue
                results.measurements.append(measured)
                told = ", ".join(f"{it.form.format(it.of(measured))} {it.unit}" for it in FIGURES if it.load == load)
                tell(f"{storage}, {load}, round {number}: {contender.name}: {told}")
        # What belongs to a failed one before is half a row, and no median of it is worth much.
        results.measurements = [
            it for it in results.measurements if it.load != load or it.storage != storage or it.server not in failed
        ]


def run_crowds(results: Results, folder: Path, count: int, tell: Callable[[str], object]) -> None:
    """Measure once how far each server grows; memory differs little from round to round."""
    for crowd in CROWDS:
        for contender in results.contenders:
            if not contender.keeps:
                continue
            try:
                growth = measure_growth(contender, crowd, count, results.sizes, folder)
            except MeasurementFailed as error:
                results.leave_out(f"{contender.name}, {crowd},", str(error))
                continue
            results.growths.append(growth)
            tell(f"{crowd}: {contender.name}: +{build_size(growth.peak - growth.before)}")


def choose_folders(given: Sequence[Path], sizes: Sizes, results: Results) -> dict[str, Path]:
    """Return the folders that have room, by what they are on; where nobody chose, one in memory and one on disk."""
    needed = 2 * sizes.streamed + 16 * KIB * sizes.uploads + SPARE
    chosen: dict[str, Path] = {}
    for folder in given or (SHARED_MEMORY, Path(tempfile.gettempdir())):
        if not folder.is_dir():
            results.leave_out("data in memory", f"there is no {folder}")
        elif storage_of(folder) in chosen:
            results.leave_out(f"another folder on {storage_of(folder)}", "one of a kind is enough")
        elif shutil.disk_usage(folder).free < needed:
            results.leave_out(f"data on {storage_of(folder)}", f"it has less than {build_size(needed)} left")
        else:
            chosen[storage_of(folder)] = folder
    if not chosen:
        raise click.UsageError("there is nowhere to keep data; choose another --folder, or a smaller --size")
    return chosen


@contextmanager
def kept_or_not(cache: Path | None) -> Iterator[Path]:
    """Give the folder for what is installed, a temporary one where none was chosen."""
    if cache is not None:
        yield cache.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="tusd_py_peers_") as folder:
        yield Path(folder)


def choose_contenders(names: Sequence[str], everybody: Sequence[Contender]) -> list[Contender]:
    """Return those with the given names, all where none are given."""
    told = [it.name for it in everybody]
    if twice := [name for name in told if told.count(name) > 1]:
        raise click.UsageError(f"two servers are called {twice[0]!r}; give --peer another name")
    if unknown := [name for name in names if name not in told]:
        raise click.UsageError(f"{unknown[0]!r} is not there; these are: {'; '.join(told)}")
    return [it for it in everybody if not names or it.name in names]


@click.command()
@click.option(
    "--rounds", default=5, show_default=True, type=click.IntRange(1), help="How often everything is measured."
)
@click.option("--size", default=GIB, show_default=True, help="Bytes of the large uploads together.")
@click.option("--uploads", default=4000, show_default=True, help="Small uploads in a round.")
@click.option("--heads", default=10000, show_default=True, help="HEAD requests in a round.")
@click.option(
    "--folder",
    "folders",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Where data goes.",
)
@click.option("--server", "names", multiple=True, help="Measure this one, and others so named, instead of all.")
@click.option("--peer", "peers", multiple=True, metavar="NAME=COMMAND", help="Another server; {port} and {folder}.")
@click.option("--install/--no-install", default=True, show_default=True, help="Install peers that a registry has.")
@click.option("--cache", type=click.Path(path_type=Path, file_okay=False), help="Keep there what was installed.")
@click.option("--memory/--no-memory", default=True, show_default=True, help="Measure what many clients cost in memory.")
@click.option("--clients", default=1000, show_default=True, help="How many slow uploads, and idle connections.")
@click.option("--json", "raw", type=click.Path(path_type=Path), help="Write all measurements into this file.")
@click.option("--plot", type=click.Path(path_type=Path), help="Write this with .png and .svg; needs matplotlib.")
@click.option("--write", "page", type=click.Path(path_type=Path, exists=True), help="Put the tables into this page.")
def main(
    rounds: int,
    size: int,
    uploads: int,
    heads: int,
    folders: tuple[Path, ...],
    names: tuple[str, ...],
    peers: tuple[str, ...],
    install: bool,
    cache: Path | None,
    memory: bool,
    clients: int,
    raw: Path | None,
    plot: Path | None,
    page: Path | None,
) -> None:
    """Measure tusd_py and other tus servers on this machine, all with the same load, and print tables."""
    results = Results(Sizes(size, uploads, heads), rounds)
    # Everything that can be wrong is found before half an hour is spent.
    try:
        others = [known.parse_peer(peer) for peer in peers]
        if page is not None:
            place(page.read_text(), "")
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if plot is not None and find_spec("matplotlib") is None:
        raise click.UsageError("--plot needs matplotlib; install it with: pip install --group bench")
    if memory:
        allow_open_files(clients * FILES_PER_UPLOAD + 512)
    chosen = choose_folders(folders, results.sizes, results)

    def tell(line: str) -> None:
        click.echo(line, err=True)

    with kept_or_not(cache) as installed:
        found = known.install_peers(installed, results.leave_out) if install else []
        results.contenders = choose_contenders(names, [*known.ours(), *found, *others, known.sink()])
        try_all(results, next(iter(chosen.values())))
        for storage, folder in chosen.items():
            run_rounds(results, folder, storage, tell)
        if memory:
            run_crowds(results, next(iter(chosen.values())), clients, tell)

    text = results.build_text()
    click.echo(text)
    if raw is not None:
        raw.write_text(results.build_json())
    if plot is not None:
        from benchmarks.plot import draw

        pictures = draw(plot, results.by_storage(), results.contenders)
        if page is not None:
            text += f"\n\n![The figures as bars]({relpath(pictures[1], page.parent)})"
    if page is not None:
        page.write_text(place(page.read_text(), text))


if __name__ == "__main__":
    main()
