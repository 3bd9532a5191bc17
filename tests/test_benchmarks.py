"""The parts of ``python -m benchmarks``: what it drives, what it counts and what it writes. Nothing here is timed."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from benchmarks.__main__ import Results, main
from benchmarks.contenders import Contender, NotInstalled, install_peers, ours, parse_peer, sink
from benchmarks.measured_server import GIB, KIB, MIB
from benchmarks.measuring import LOADS, Measurement, MeasurementFailed, Sizes, measure
from benchmarks.memory_growth import CROWDS, Growth, measure_growth
from benchmarks.report import (
    BEGIN,
    END,
    build_figures,
    build_growth,
    build_ratios,
    build_table,
    place,
    tell_generator,
    tell_spread,
)

SIZES = Sizes(streamed=4 * MIB, uploads=40, heads=40)
OURS, TWO_WORKERS, INSTALLED = ours()
THEIRS = Contender("theirs", ("theirs", "{port}"), version="7")

SAMPLE = Measurement(
    server="tusd_py",
    load="one stream",
    storage="tmpfs",
    round=1,
    requests=1,
    bytes=GIB,
    seconds=1.0,
    cpu_seconds=0.5,
    peak_memory=60 * MIB,
    memory_before=50 * MIB,
    generator_cpu_seconds=0.25,
)


def cells(table: str) -> list[list[str]]:
    """Return what stands in the rows of a table, that of the names first."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if "---" not in line]


# Measuring


@pytest.mark.parametrize("load", LOADS)
def test_our_server_is_driven_and_what_it_keeps_is_counted(tmp_path: Path, load: str) -> None:
    measured = measure(OURS, load, SIZES, tmp_path, "disk", 3)
    requests = {"one stream": 1, "16 streams": 16, "small uploads": 40, "HEAD": 40}
    sent = {"one stream": 4 * MIB, "16 streams": 4 * MIB, "small uploads": 40 * 4 * KIB, "HEAD": 0}
    assert (measured.server, measured.load, measured.storage, measured.round) == ("tusd_py", load, "disk", 3)
    assert (measured.requests, measured.bytes) == (requests[load], sent[load])
    assert measured.peak_memory >= measured.memory_before > 0
    assert measured.seconds > 0


def test_nothing_is_left_of_a_measurement(tmp_path: Path) -> None:
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    measure(TWO_WORKERS, "small uploads", SIZES, tmp_path, "disk", 1)
    assert list(tmp_path.iterdir()) == []
    assert {process.pid for process in psutil.Process().children(recursive=True)} <= before


@pytest.mark.parametrize("load", LOADS)
def test_the_sink_takes_every_load(tmp_path: Path, load: str) -> None:
    assert measure(sink(), load, SIZES, tmp_path, "disk", 1).requests > 0


def test_a_server_that_keeps_nothing_is_found_out(tmp_path: Path) -> None:
    """A figure of a server that lost what it acknowledged would be worse than none."""
    with pytest.raises(MeasurementFailed, match=r"^0 files of 4096 bytes are there instead of 40$"):
        measure(replace(sink(), keeps=True), "small uploads", SIZES, tmp_path, "disk", 1)


def test_a_server_that_refuses_is_found_out(tmp_path: Path) -> None:
    strict = replace(OURS, command=(*OURS.command, "--max-file-size", "1KiB"))
    with pytest.raises(MeasurementFailed, match=r"^201 was expected: .*413"):
        measure(strict, "small uploads", SIZES, tmp_path, "disk", 1)


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    broken = Contender("broken", (sys.executable, "-c", "raise SystemExit('no such thing, {port}')"))
    with pytest.raises(MeasurementFailed, match=r"^no such thing, [0-9]+$"):
        measure(broken, "HEAD", SIZES, tmp_path, "disk", 1)


def test_a_command_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(MeasurementFailed, match="No such file"):
        measure(parse_peer("gone=/nowhere/at/all {port}"), "HEAD", SIZES, tmp_path, "disk", 1)


@pytest.mark.parametrize("crowd", CROWDS)
def test_growth_is_measured_from_what_was_there_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crowd: str
) -> None:
    monkeypatch.setattr("benchmarks.memory_growth.DRIPPING", 1.0)
    growth = measure_growth(OURS, crowd, 20, SIZES, tmp_path)
    assert (growth.server, growth.crowd, growth.count) == ("tusd_py", crowd, 20)
    assert growth.peak >= growth.before > 0


# Peers


def test_a_peer_is_named_and_started_with_its_port_and_folder() -> None:
    peer = parse_peer("tusd=tusd -host 127.0.0.1 -port {port} -upload-dir '{folder}' -verbose=false")
    assert peer.name == "tusd"
    told = ["tusd", "-host", "127.0.0.1", "-port", "99", "-upload-dir", "/a b", "-verbose=false"]
    assert peer.words(99, Path("/a b")) == told


@pytest.mark.parametrize("text", ["", "tusd", "tusd -port {port}", "=tusd -port {port}", "tusd=tusd -port 80"])
def test_a_peer_without_name_or_port_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write NAME=COMMAND"):
        parse_peer(text)


def test_peers_do_not_get_our_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUSD_PY_PORT", "1")
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    monkeypatch.setenv("ELSE", "kept")
    variables = replace(THEIRS, variables={"FOLDER": "{folder}"}).environment(Path("/data"))
    assert not {"TUSD_PY_PORT", "PYTHONWARNINGS"} & variables.keys()
    assert (variables["ELSE"], variables["FOLDER"]) == ("kept", "/data")


def test_peers_that_cannot_be_installed_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*command: str) -> str:
        raise NotInstalled("there is no network")

    monkeypatch.setattr("benchmarks.contenders._run", refuse)
    monkeypatch.setattr("benchmarks.contenders._program", lambda name: name)
    left_out: list[tuple[str, str]] = []
    assert install_peers(tmp_path, lambda *told: left_out.append(told)) == []
    assert left_out == [("@tus/server", "there is no network"), ("tuspyserver", "there is no network")]


# Figures


def test_figures_are_medians_of_the_rounds() -> None:
    rounds = [replace(SAMPLE, round=number, seconds=seconds) for number, seconds in enumerate((1.0, 4.0, 2.0))]
    header, row = cells(build_figures(rounds, [OURS]))
    assert header[:4] == ["server", "one stream: GB/s", "CPU s/GiB", "peak MiB"]
    assert row == ["tusd_py", "0.54", "0.50", "60", *"–––––––"]


def test_small_requests_are_told_by_their_number() -> None:
    small = replace(SAMPLE, load="small uploads", requests=4000, bytes=4000 * 4096, seconds=2.0, cpu_seconds=1.0)
    assert cells(build_figures([small], [OURS]))[1][7:9] == ["2,000", "250"]


def test_ratios_are_ours_by_theirs() -> None:
    other = replace(SAMPLE, server="theirs", seconds=2.0, cpu_seconds=2.0)
    contenders = [OURS, TWO_WORKERS, INSTALLED, THEIRS, sink()]
    _, one, two = cells(build_ratios([SAMPLE, other], contenders))
    assert one[:3] == ["tusd_py ÷ theirs", "2.00", "0.25"]
    assert two[:3] == ["tusd_py, 2 workers ÷ theirs", "–", "–"]


def test_without_peers_there_are_no_ratios() -> None:
    assert build_ratios([SAMPLE], [OURS, sink()]) == ""


def test_growth_is_told_beside_what_was_there_before() -> None:
    growths = [
        Growth("tusd_py", "16 fast uploads", 50, 50 * MIB, 75 * MIB),
        Growth("tusd_py", "slow uploads", 1000, 52 * MIB, 60 * MIB),
    ]
    header, row = cells(build_growth(growths, [OURS, sink()]))
    assert header == ["server, MiB", "before", "16 fast uploads", "1,000 slow uploads", "–"]
    assert row == ["tusd_py", "51", "+25.0", "+8.0", "–"]


def test_the_distance_between_rounds_is_told() -> None:
    rounds = [replace(SAMPLE, seconds=seconds) for seconds in (1.0, 1.0, 2.0)]
    assert "0% of it in the middle of all figures, 50% at most" in tell_spread(rounds, [OURS])
    assert tell_spread([SAMPLE], [OURS]) == ""


def test_how_busy_the_load_was_is_told_without_the_sink() -> None:
    flooded = replace(SAMPLE, server=sink().name, generator_cpu_seconds=1.0)
    assert tell_generator([SAMPLE, flooded], [OURS, sink()]) == (
        "The load itself took 25% of one core at most (one stream of tusd_py)."
    )
    assert tell_generator([], [OURS]) == ""


def test_tables_line_up() -> None:
    assert build_table(("a", "number"), [("name", "1"), ("b", "20")]).splitlines() == [
        "| a    | number |",
        "| ---- | -----: |",
        "| name |      1 |",
        "| b    |     20 |",
    ]


# What is written


def test_tables_take_the_place_of_older_ones() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    once = place(page, "new\n")
    assert once == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    assert place(once, "new") == once


def test_a_page_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match="write two lines into it"):
        place(f"{END} {BEGIN[:-1]}", "new")


def test_the_page_on_benchmarks_has_a_place() -> None:
    page = (Path(__file__).parents[1] / "docs" / "benchmarks.md").read_text()
    assert "new" in place(page, "new")


def test_results_are_written_with_all_rounds_and_without_commands() -> None:
    results = Results(SIZES, 2, contenders=[OURS, THEIRS], measurements=[SAMPLE, replace(SAMPLE, round=2)])
    results.leave_out("theirs", "it is\nbroken")
    written = json.loads(results.build_json())
    assert [it["round"] for it in written["measurements"]] == [1, 2]
    assert written["contenders"][1] == {"name": "theirs", "workers": 1, "version": "7"}
    assert written["sizes"] == {"streamed": 4 * MIB, "uploads": 40, "heads": 40}
    assert written["left_out"] == ["theirs is left out: it is broken"]
    assert sys.executable not in results.build_json()


def test_the_command_measures_prints_and_writes(tmp_path: Path) -> None:
    page, raw = tmp_path / "page.md", tmp_path / "raw.json"
    page.write_text(f"# Figures\n\n{BEGIN}\n{END}\n")
    sizes = ("--size", str(4 * MIB), "--uploads", "40", "--heads", "40", "--rounds", "2")
    peer = ("--peer", "gone=/nowhere/at/all {port}", "--server", "gone")
    wanted = ("--server", "tusd_py", "--server", sink().name, "--no-install", "--no-memory", "--folder", str(tmp_path))
    ended = CliRunner().invoke(main, [*sizes, *wanted, *peer, "--json", str(raw), "--write", str(page)])
    assert ended.exit_code == 0, ended.output
    written = json.loads(raw.read_text())
    measured = written["measurements"]
    # In turns: both once, and then both again.
    turns = [(it["round"], it["server"]) for it in measured if it["load"] == "HEAD"]
    assert turns == [(1, "tusd_py"), (1, sink().name), (2, "tusd_py"), (2, sink().name)]
    assert written["left_out"] == ["gone is left out: No such file or directory"]
    assert ended.stdout.strip() in page.read_text()
    assert [path for path in tmp_path.iterdir() if path not in (page, raw)] == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--peer", "nonsense"], "write NAME=COMMAND"),
        (["--peer", "tusd_py=x {port}", "--no-install", "--no-memory"], "give --peer another name"),
        (["--server", "nobody", "--no-install", "--no-memory"], "these are: tusd_py; "),
        (["--size", str(10**18), "--no-memory"], "there is nowhere to keep data"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(arguments: list[str], told: str) -> None:
    ended = CliRunner().invoke(main, arguments)
    assert ended.exit_code == 2
    assert told in ended.output
