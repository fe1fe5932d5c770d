"""The live view: what it knows, without a terminal; and how it looks and leaves, on real ones."""

import codecs
import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Iterator
from errno import ECONNREFUSED
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.text import Text

from snat_race.analysis.rolling_window import MOST_BINS, WINDOW_S, RollingWindow, VariantTotals
from snat_race.report.live.lines import DrawingArea, flow, loss_items, spark
from snat_race.report.live.panel import REFRESH_S
from snat_race.results import sample
from snat_race.results.counters import CONNTRACK_COUNTERS, ConntrackDelta, CounterDelta
from snat_race.results.schema import Summary
from tests.conftest import PRIVATE, SOON_S, RunningServer, fork_cli, in_sandbox, start_cli

PANEL, LAST = re.compile(r"since start [^:]*worker "), re.compile(r"last round")
CODE = re.compile(r"\x1b\[(\??)([\d;]*)([A-Za-z])")


def drained(*workers: tuple[int, int], latency_ns: int = 1000) -> list[Any]:
    """Samples: so many dials of each worker, of which so many were lost."""
    arrays = []
    for dials, lost in workers:
        samples = np.zeros(dials, sample.FIELDS)
        errors = [ECONNREFUSED] * lost + [0] * (dials - lost)
        samples["packed"] = [sample.pack(error, 1, latency_ns) for error in errors]
        arrays.append(samples)
    return arrays


def risen(insert_failed: int) -> list[CounterDelta]:
    per_cpu = {name: [0, 0] for name in CONNTRACK_COUNTERS} | {"insert_failed": [insert_failed, 0]}
    conntrack = ConntrackDelta(**per_cpu, count=1, max=9)
    return [CounterDelta(netns="x", began_at="2026-01-01", elapsed_s=1, conntrack=conntrack, tcp={})]


def test_what_is_older_than_the_window_is_forgotten_but_in_the_total() -> None:
    recent = RollingWindow(2)
    for number in range(1, 26):  # 5 s
        old = number <= 10
        recent.add(number / 5, drained((10, old), (5, 0), latency_ns=9000 if old else 500), risen(number))
    last, total = recent.last, recent.total
    assert (last.dials, last.lost, last.insert_failed) == (150, 0, 10)
    assert last.rate_per_s == pytest.approx(75)
    assert last.latency_ns
    assert last.latency_ns.max == 500
    assert (total.dials, total.lost, total.insert_failed, total.elapsed_s) == (375, 10, 25, 5)
    assert total.loss_rate == pytest.approx(10 / 375)


def test_dials_late_by_a_retransmit_are_shown_apart_from_the_lost_as_long_as_there_are_any() -> None:
    recent = RollingWindow(1)
    recent.add(0.5, drained((10, 0)), [])
    assert not any("late" in item for item, _ in loss_items(recent.total))
    recent.add(1.0, drained((10, 1)), [], late_by_retransmit=2)
    recent.add(2.0, drained((10, 0)), [], late_by_retransmit=3)
    assert (recent.last.late_by_retransmit, recent.total.late_by_retransmit) == (3, 3)
    assert loss_items(recent.total)[1] == ("late by a retransmit 3", "bold red")
    recent.add(4.0, drained((10, 0)), [], late_by_retransmit=3)
    assert (recent.last.late_by_retransmit, recent.total.late_by_retransmit) == (0, 3)
    assert not any("late" in item for item, _ in loss_items(recent.last))


def test_nothing_drained_is_no_latency_and_nobody_watching_is_not_zero() -> None:
    recent = RollingWindow(3)
    assert recent.total.rate_per_s == 0
    recent.add(0.2, drained((0, 0), (0, 0), (0, 0)), [])
    assert recent.last == (0.2, 0, 0, None, None, 0)
    assert recent.worst(5)[0].rates_per_s == []


def test_losses_are_those_of_their_worker_and_the_worst_are_shown() -> None:
    recent = RollingWindow(5)
    for number in range(1, 12):
        recent.add(number / 5, drained((4, 0), (0, 0), (4, 3), (6, 0), (4, 1)), [])
    assert [each.number for each in recent.worst(2)] == [2, 4]
    assert [each.number for each in recent.worst(3)] == [2, 3, 4]  # 3 dials most of those that lose nothing
    worst = recent.worst(1)[0]
    assert (worst.number, worst.dials, worst.lost) == (2, 44, 33)
    assert worst.rates_per_s == pytest.approx([20, 20])
    assert worst.losses == [15, 15]


DRAINS = st.lists(
    st.tuples(st.integers(1, 15), st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=60
)


@settings(max_examples=50)
@given(DRAINS)
def test_the_window_is_what_was_drained_since_two_seconds_ago(drains: list[tuple[int, int, int]]) -> None:
    recent, at_s, history = RollingWindow(2), 0.0, [(0.0, 0, 0)]
    for eighths, dials, lost in drains:
        at_s += eighths / 8  # exact in binary
        recent.add(at_s, drained((dials, 0), (lost, lost)), [])
        history.append((at_s, dials + lost, lost))
    began_s = max((began for began, _, _ in history if began <= at_s - WINDOW_S), default=0.0)
    within = [(dials, lost) for began, dials, lost in history if began > began_s]
    last, total = recent.last, recent.total
    assert (last.elapsed_s, last.dials) == (at_s - began_s, sum(dials for dials, _ in within))
    assert (last.lost, total.lost) == (sum(lost for _, lost in within), sum(lost for _, _, lost in history))
    binned = [sum(worker.losses) for worker in recent.worst(2)]
    assert sum(binned) <= total.lost


def test_memory_and_work_are_bounded_however_many_workers() -> None:
    workers = 4096
    recent, each = RollingWindow(workers), drained(*[(4, 1)] * workers)
    began_s = time.process_time()
    for number in range(1, 51):
        recent.add(number / 5, each, [])
        if number % 3 == 0:
            assert recent.last.latency_ns
            assert len(recent.worst(16)) == 16
    assert time.process_time() - began_s < 0.02 * 10  # 2 % of a core, of these 10 s
    nothing = drained(*[(0, 0)] * workers)
    for number in range(51, 300):
        recent.add(number / 5, nothing, [])
    assert len(recent.worst(1)[0].rates_per_s) == MOST_BINS
    assert recent.last.dials == 0


def test_percentiles_of_very_many_are_close_and_the_maximum_is_exact() -> None:
    random = np.random.default_rng(1)
    latencies_ns = random.integers(1000, 1_000_000, 200_000).astype(np.uint64)
    samples = np.zeros(len(latencies_ns), sample.FIELDS)
    samples["packed"] = [sample.pack(0, 1, latency_ns) for latency_ns in latencies_ns.tolist()]
    recent = RollingWindow(1)
    recent.add(0.2, [samples], [])
    latency = recent.last.latency_ns
    assert latency
    assert latency.max == latencies_ns.max()
    assert latency.p50 == pytest.approx(np.percentile(latencies_ns, 50), rel=0.03)
    assert latency.p99 == pytest.approx(np.percentile(latencies_ns, 99), rel=0.01)


def test_the_rounds_of_a_rule_add_up() -> None:
    totals = VariantTotals()
    assert totals.collision_rate is None
    fields = {"connected": 97, "late": 0, "overruns": 0, "cut_short": 0, "elapsed_s": 1, "rate_per_s": 1}
    fields |= {"errors": {"TIMEOUT": 3}, "loss_rate": 0.03, "loss_rate_ci95": (0, 1), "counters": risen(3)}
    for _ in range(2):
        totals.add(Summary(attempted=100, failed=3, paired=40, collisions=3, **fields))
    counted = totals.dials, totals.lost, totals.insert_failed, totals.paired
    assert (counted, totals.collision_rate) == ((200, 6, 6, 80), 6 / 80)


def test_a_spark_marks_losses_and_items_are_never_broken() -> None:
    line = spark([0, 1, 8], [False, True, True], 8, DrawingArea(40, 10, ascii_only=False))
    assert line.plain == " ▁█"
    assert [(span.start, span.end, span.style) for span in line.spans] == [(1, 3, "bold red")]
    assert spark([1, 8], [False, False], 8, DrawingArea(40, 10, ascii_only=True)).plain.isascii()
    lines = flow("label", [("12345678901234567890", "")] * 3, DrawingArea(40, 10, ascii_only=False))
    assert [line.plain.rstrip() for line in lines] == [
        "label       12345678901234567890",
        "  12345678901234567890",
        "  12345678901234567890",
    ]
    assert all(isinstance(line, Text) for line in lines)


class Terminal:
    """A command on a terminal of its own, and what it has written there."""

    def __init__(self, *args: str, columns: int = 100, rows: int = 40, **extra: str) -> None:
        self.master, slave = pty.openpty()
        self.resize(columns, rows)
        environment = {"TERM": "xterm-256color", "COLUMNS": ""} | extra  # the terminal knows its width
        self.process = start_cli(*args, stdin=slave, stdout=slave, stderr=slave, **environment)
        os.close(slave)
        self.written, self._decoder = "", codecs.getincrementaldecoder("utf-8")()

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read_until(self, pattern: re.Pattern[str], within_s: float = SOON_S) -> None:
        """Read on; ``pattern`` is looked for in what is new."""
        seen, deadline_s = len(self.written), time.monotonic() + within_s
        while not pattern.search(plain(self.written[seen:])):
            assert time.monotonic() < deadline_s, self.written
            assert self._read(), self.written

    def finish(self, number: int | None = None) -> str:
        """Read to the end, after a signal if one is given; return all that was written."""
        if number:
            self.process.send_signal(number)
        while self._read():
            pass
        assert self.process.wait(timeout=SOON_S) == 0, self.written
        return self.written

    def _read(self) -> bool:
        select.select([self.master], [], [], 10)
        try:
            chunk = os.read(self.master, 65536)
        except OSError:  # EIO: nobody has the other end any more
            return False
        self.written += self._decoder.decode(chunk)  # which may end within a character
        return True

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(OSError):
            os.close(self.master)


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for each in opened:
        each.close()


def plain(text: str) -> str:
    return CODE.sub("", text).replace("\r", "")


def screen(text: str, columns: int) -> str:
    """Return what a terminal without end shows: knows what rich sends, and wraps long lines."""
    lines, row, column = [""], 0, 0
    for part in re.split(r"(\x1b\[\??[\d;]*[A-Za-z]|\r|\n)", text):
        code = CODE.fullmatch(part)
        if code and code[3] == "A":
            row -= int(code[2] or 1)
            assert row >= 0
        elif code and code[3] == "K":
            lines[row] = ""
        elif part == "\r":
            column = 0
        elif part == "\n":
            row += 1
        elif not code:
            for character in part:
                if column == columns:
                    row, column = row + 1, 0
                lines += [""] * (row + 1 - len(lines))
                lines[row] = lines[row][:column].ljust(column) + character + lines[row][column + 1 :]
                column += 1
        lines += [""] * (row + 1 - len(lines))
    return "\n".join(lines)


def dialling(server: RunningServer, *more: str) -> list[str]:
    return ["client", "-r", server.address, "-c", "2", "-d", "2000", "-s", "1", "--live", *more]


def check_left_behind(text: str, columns: int) -> None:
    """The panel is gone, without a trace; the usual text is all there."""
    left = screen(text, columns)
    assert not re.search(r"last 2 s|since start +\d|[╭╰│]|last round", left), left
    assert text.count("\x1b[?25h") == text.count("\x1b[?25l"), "the cursor is as it was"
    shown = left.replace("\n", "")
    assert "Starting to dial" in shown
    assert left.count("median:") >= 1
    assert "Summary of the whole run" in shown
    assert "from slot" in shown


def test_the_panel_appears_in_any_window_and_the_summary_stays(
    server: RunningServer, terminals: list[Terminal]
) -> None:
    sizes = [(80, 24), (40, 24), (100, 6), (12, 2)]
    apart = dialling(server, "--mode", "independent")  # side by side, they would take each other's ports
    terminals += [Terminal(*apart, columns=columns, rows=rows) for columns, rows in sizes]
    for terminal, (columns, rows) in zip(terminals, sizes, strict=True):
        terminal.read_until(re.compile("127.*127.*worker" if columns > 12 else "127", re.DOTALL))
        if rows >= 24:
            terminal.read_until(PANEL)
            assert ("╭" in terminal.written) == (columns >= 80)
        terminal.read_until(re.compile("median"))
        check_left_behind(terminal.finish(signal.SIGINT), columns)


def test_a_window_may_change_its_size(server: RunningServer, terminals: list[Terminal]) -> None:
    terminals.append(terminal := Terminal(*dialling(server), columns=50, rows=20))
    terminal.read_until(PANEL)
    assert "╭" not in terminal.written
    terminal.resize(100, 40)
    terminal.read_until(re.compile("╭.*╰", re.DOTALL))
    terminal.read_until(re.compile("median"))
    check_left_behind(terminal.finish(signal.SIGINT), 100)


def test_failed_dials_are_told_above_the_panel_each_as_one_line(
    port: int, terminals: list[Terminal]
) -> None:
    args = ["client", "-r", f"127.0.0.1:{port}", "-c", "20", "-d", "50000", "-s", "1", "--live"]
    terminals.append(terminal := Terminal(*args, "--watch-netns", "/proc/self/ns/net", rows=16))
    terminal.read_until(re.compile(r"lost +[\d,]+ +100\.0%.*and \d+ more workers", re.DOTALL))
    terminal.read_until(re.compile("more errors"))
    lines = plain(terminal.finish(signal.SIGINT)).splitlines()
    told = [line[line.index("20") :] for line in lines if "connection refused" in line]
    assert len(told) >= 10
    assert all(line.endswith('refused"') for line in told)
    assert screen(terminal.written, 1000).count("connection refused") == len(told)


def test_no_color_is_obeyed(server: RunningServer, terminals: list[Terminal]) -> None:
    terminals.append(terminal := Terminal(*dialling(server), NO_COLOR="1"))
    terminal.read_until(PANEL)
    assert not re.search(r"\x1b\[[\d;]*(3\d|4\d|9\d)m", terminal.finish(signal.SIGINT))


def test_a_dumb_terminal_gets_the_usual_text(server: RunningServer, terminals: list[Terminal]) -> None:
    terminals.append(terminal := Terminal(*dialling(server, "--duration", "1100ms"), TERM="dumb"))
    text = terminal.finish()
    assert "\x1b" not in text
    assert "last 2 s" not in text
    assert "Summary of the whole run" in text


@pytest.mark.parametrize("extra", [{"FORCE_COLOR": "1", "TERM": "xterm"}])
def test_a_pipe_gets_the_usual_text(server: RunningServer, extra: dict[str, str]) -> None:
    done = fork_cli(*dialling(server, "--duration", "1100ms"), **extra)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert "last 2 s" not in done.stdout + done.stderr
    assert "Requests since start (error/total):" in done.stdout
    assert "Summary of the whole run" in done.stdout


def test_live_and_json_exclude_each_other() -> None:
    done = fork_cli("client", "--live", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("snat_race: --live: ")
    assert done.stderr.count("\n") == 1


def test_it_takes_little_work_and_no_thread(server: RunningServer, terminals: list[Terminal]) -> None:
    terminals.append(terminal := Terminal(*dialling(server, "-s", "60")))
    terminal.read_until(PANEL)
    process = psutil.Process(terminal.process.pid)
    began, began_s = process.cpu_times(), time.monotonic()
    shown = terminal.written.count("╭")
    assert process.num_threads() == 1
    for _ in range(4):
        terminal.read_until(PANEL)
    spent, elapsed_s = process.cpu_times(), time.monotonic() - began_s
    # All that the parent does: draining, summing up, drawing.
    assert (spent.user + spent.system - began.user - began.system) / elapsed_s <= 0.06
    drawn = terminal.written.count("╭") - shown
    assert 4 <= drawn <= elapsed_s / REFRESH_S + 1  # the first may be due at once


def test_a_terminal_that_goes_away_takes_no_result_along(
    server: RunningServer, terminals: list[Terminal], tmp_path: Path
) -> None:
    out = tmp_path / "r.json"
    args = ["--duration", "1s", "-s", "60", "-o", str(out)]
    terminals.append(terminal := Terminal(*dialling(server, *args)))
    terminal.read_until(PANEL)
    os.close(terminal.master)
    terminal.process.wait(timeout=SOON_S)
    assert json.loads(out.read_text())["summary"]["connected"] > 0


@PRIVATE
@pytest.mark.parametrize("columns", [40])
def test_the_lab_shows_its_rules_and_leaves_its_report(terminals: list[Terminal], columns: int) -> None:
    args = ["lab", "--duration", "600ms", "--variant", "masquerade", "--variant", "no nat"]
    terminals.append(terminal := Terminal(*args, columns=columns))
    terminal.read_until(re.compile("setting up"))
    terminal.read_until(re.compile("measuring"))
    terminal.read_until(re.compile(r"dials/s .*insert_failed.*p50.*p95.*p99.*max.*collided", re.DOTALL))
    text = terminal.finish()
    left = screen(text, columns)
    assert "measuring" not in left
    assert not LAST.search(left)
    assert "Verdict" in left
    assert text.count("\x1b[?25h") == text.count("\x1b[?25l") == 1


@PRIVATE
@pytest.mark.parametrize(("columns", "lines"), [(100, True), (50, False)], ids=["wide", "narrow"])
def test_a_watch_on_a_terminal_is_one_table_in_place_with_the_sums_below(columns: int, lines: bool) -> None:
    def watched() -> str:
        terminal = Terminal("watch", "--interval", "100ms", columns=columns)
        try:
            for _ in range(3):
                terminal.read_until(re.compile("entries, last: "))
            return terminal.finish(signal.SIGINT)
        finally:
            terminal.close()

    text = in_sandbox(watched)
    left = screen(text, columns)
    assert plain(text).count("entries, last: ") > left.count("entries, last: ") == 1, left
    assert bool(re.search("[│┃]", left)) is lines, left
    assert left.index("entries, last: ") < left.index("In all, "), left
    assert text.count("\x1b[?25h") == text.count("\x1b[?25l") > 0, "the cursor is as it was"
