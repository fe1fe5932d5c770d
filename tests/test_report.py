"""Results that were kept: read, merged, shown, and held against limits."""

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snat_race.analysis.diagnosis import diagnose
from snat_race.analysis.histogram import Histogram
from snat_race.analysis.merge import merged, merged_summary
from snat_race.analysis.warnings import of_merged
from snat_race.cli.result_reader import read
from snat_race.report.registry import document
from snat_race.report.renderers.text import text
from snat_race.results.conclusions import MeasurementWarning, WarningKind
from snat_race.results.counters import CONNTRACK_COUNTERS, CounterDelta
from snat_race.results.schema import ClientResult, Latency, Summary
from tests.conftest import ROOT, SOON_S, fork_cli, start_cli
from tests.results import (
    BEGAN,
    rise,
    small_client,
    small_doctor,
    small_lab,
    small_trace,
    small_watch,
    summary_of,
)

Kept = Callable[..., Path]


@given(st.integers(0, 400), st.integers(1, 2000), st.text(max_size=20))
@settings(max_examples=20)
def test_a_result_survives_the_way_through_a_file(failed: int, attempted: int, name: str) -> None:
    result = small_client(name, failed=min(failed, attempted), attempted=attempted)
    assert ClientResult.model_validate_json(result.model_dump_json(indent=1)) == result


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=400))
def test_percentiles_never_fall(latencies_ns: list[int]) -> None:
    """Latency refuses percentiles out of order, so deriving them is the test."""
    histogram = Histogram()
    histogram.record(np.array(latencies_ns, np.uint64))
    ordered = [histogram.percentile_ns(each) for each in (0, 50, 95, 99, 99.9, 99.99, 100)]
    assert ordered == sorted(ordered)


def test_percentiles_that_fall_are_no_result() -> None:
    with pytest.raises(ValueError, match="must not fall"):
        Latency(min=1, p50=5, p90=4, p95=6, p99=6, p999=6, max=7, mean=5)


@given(st.lists(st.tuples(st.integers(1, 300), st.integers(0, 300)), min_size=1, max_size=6))
@settings(max_examples=15)
def test_merging_histograms_is_adding_samples(sizes: list[tuple[int, int]]) -> None:
    rng = np.random.default_rng(len(sizes))
    chunks = [rng.lognormal(11, 2, n).astype(np.uint64) + 1 for n, _ in sizes]
    whole, parts = Histogram(), []
    whole.record(np.concatenate(chunks))
    for chunk in chunks:
        part = Histogram()
        part.record(chunk)
        parts.append(part.encode())
    together = Histogram.of(parts)
    assert together.count == whole.count
    for percent in (0, 50, 90, 99, 99.9, 100):
        assert together.percentile_ns(percent) == whole.percentile_ns(percent)
    assert together.mean_ns == pytest.approx(whole.mean_ns)


MERGE = """
import sys, time
from pathlib import Path
from snat_race.cli.result_reader import read_all
began = time.process_time()
result = read_all([Path(each) for each in sys.argv[1:]])
took_s = time.process_time() - began
(peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
print(took_s, int(peak.split()[1]) // 1024)
print(result.summary.attempted, result.summary.latency_all_ns.p999, result.summary.latency_all_ns.max)
"""


def test_64_results_of_ten_million_dials_merge_quickly_and_small(tmp_path: Path) -> None:
    rng, whole, paths = np.random.default_rng(1), Histogram(), []
    for number in range(64):
        latencies_ns = rng.lognormal(11, 0.6, 1_000).astype(np.uint64) + 1
        weight, own = np.full(1_000, 10_000, np.uint64), Histogram()
        own.record(latencies_ns, weight)
        whole.record(latencies_ns, weight)
        summary = summary_of(10, 0).model_copy(
            update={"attempted": 10_000_000, "connected": 10_000_000, "histogram_all": own.encode()}
        )
        result = small_client(f"{number:032}", attempted=10).model_copy(update={"summary": summary})
        paths.append(tmp_path / f"{number}.json")
        paths[-1].write_text(result.model_dump_json())
    done = subprocess.run(
        [sys.executable, "-c", MERGE, *map(str, paths)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    took_s, used_mb, attempted, p999, most = map(float, done.stdout.split())
    assert (attempted, p999, most) == (640_000_000, whole.percentile_ns(99.9), whole.percentile_ns(100))
    assert took_s <= 2, done.stdout
    assert used_mb <= 200, done.stdout


def test_losses_of_two_clients_are_those_that_their_node_counted() -> None:
    both = merged([small_client("a", failed=7), small_client("b", failed=5)], [small_watch("w", 12)])
    (cause,) = both.diagnosis
    assert (cause.cause, cause.losses) == ("snat_race", 12)
    assert sum(both.kernel.conntrack.insert_failed) == both.summary.failed == 12
    assert sum(period.failed for period in both.periods) == 12
    assert both.periods[0].counters[0].conntrack == both.kernel.source
    assert [source.kind for source in both.merged_from] == ["client", "client", "watch"]


def test_a_namespace_that_two_have_watched_counts_once() -> None:
    watches = [small_watch("w", 12), small_watch("x", 12)]
    both = merged([small_client("a", failed=12)], watches)
    assert sum(both.kernel.conntrack.insert_failed) == 12


def test_nodes_of_different_cpus_and_a_client_that_watched_for_itself_add_up() -> None:
    lap = CounterDelta(netns="x", inode=3, began_at=BEGAN, elapsed_s=10, conntrack=rise(5), tcp={})
    assert lap.conntrack
    wide = {name: [*getattr(lap.conntrack, name), 0, 0] for name in CONNTRACK_COUNTERS}
    lap = lap.model_copy(update={"conntrack": lap.conntrack.model_copy(update=wide)})
    own = small_client("own", failed=5, environment={"boot_id": "elsewhere"}, watched=lap.conntrack)
    own = own.model_copy(
        update={"periods": [each.model_copy(update={"counters": [lap]}) for each in own.periods]}
    )
    both = merged([own, small_client("b", failed=7)], [small_watch("w", 7)])
    assert both.kernel.conntrack.insert_failed == [12, 0, 0, 0]
    assert {each.cause: each.losses for each in both.diagnosis} == {"snat_race": 12}
    assert not any(warning.kind == "hosts_unwatched" for warning in of_merged(both))


def test_a_watch_of_another_time_is_not_counted(kept: Kept) -> None:
    client, watch = (
        kept("a", failed=3),
        kept("w", kind="watch", insert_failed=9, began_at="2026-11-23T11:00:00Z"),
    )
    result = json.loads(fork_cli("report", str(client), str(watch), "--format", "json").stdout)
    assert result["kernel"]["source"] is None
    assert "missed some" in fork_cli("report", str(client), str(watch)).stdout


def test_merged_counts_are_sums() -> None:
    parts = [summary_of(100, 3), summary_of(50, 0, seed=2)]
    both = merged_summary(parts)
    assert (both.attempted, both.connected, both.failed, both.errors) == (150, 147, 3, {"TIMEOUT": 3})
    assert both.latency_ns
    assert both.latency_ns.max == max(each.latency_ns.max for each in parts if each.latency_ns)
    assert both.began_at == BEGAN


def test_every_form_of_a_merged_report(kept: Kept) -> None:
    files = [
        str(kept("a", failed=7)),
        str(kept("b", failed=5)),
        str(kept("w", kind="watch", insert_failed=12)),
    ]
    text = fork_cli("report", *files).stdout
    detailed = fork_cli("report", *files, "--details").stdout
    assert "12 of 20,000 dials (0.06%) failed: 12 snat_race; insert_failed rose by 12." in " ".join(
        text.split()
    )
    for heading in ("DIALS", "CAUSES", "LATENCY", "MERGED FROM"):
        assert heading in text
    for heading in ("DIALS", "CAUSES", "LATENCY", "HISTOGRAM", "LOSSES AND INSERT_FAILED", "MERGED FROM"):
        assert heading in detailed
    (watch,) = [line.split() for line in text.splitlines() if " watch " in line]
    assert watch[-2:] == ["-", "-"]  # it dialled nothing, so nothing failed
    markdown = fork_cli("report", *files, "--format", "markdown").stdout
    assert "| snat\\_race |" in markdown
    rows = list(csv.DictReader(io.StringIO(fork_cli("report", *files, "--format", "csv").stdout)))
    assert [(row["attempted"], row["insert_failed"]) for row in rows] == [("20000", "12")]
    hgrm = fork_cli("report", *files, "--format", "hgrm").stdout
    assert "1/(1-Percentile)" in hgrm
    assert "TotalCount     =    20000" in hgrm
    kept_json = json.loads(fork_cli("report", *files, "--format", "json").stdout)
    again = Path(files[0]).with_name("merged.json")
    again.write_text(json.dumps(kept_json))
    assert fork_cli("report", str(again)).stdout == text
    assert fork_cli("report", str(again), "--details").stdout == detailed


def test_unknown_fields_are_kept(kept: Kept) -> None:
    path = kept("a")
    document = json.loads(path.read_text()) | {"of_the_future": [1]}
    path.write_text(json.dumps(document))
    assert json.loads(fork_cli("report", str(path), "--format", "json").stdout)["of_the_future"] == [1]


def test_the_schema_is_one_and_fits(kept: Kept) -> None:
    schema = json.loads(fork_cli("report", "--schema").stdout)
    assert {"ClientResult", "LabResult", "MergedResult", "WatchResult", "DoctorResult"} <= schema[
        "$defs"
    ].keys()
    required = schema["$defs"]["ClientResult"]["required"]
    assert set(required) <= json.loads(kept("a").read_text()).keys()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("{", "cut off"),
        ("[1, 2]", "holds no result"),
        ('{"kind": "pizza"}', "kind 'pizza'"),
        ('{"kind": "client", "schema_version": 3}', "update snat_race"),
        ('{"kind": "client", "schema_version": 0}', "with the version that wrote it"),
        ('{"kind": "client", "schema_version": "2"}', "its schema_version, '2', is no whole number"),
        ('{"kind": "client", "schema_version": 1}', "damaged"),
        ('{"kind": "client", "schema_version": 1, "periods": 5}', "damaged"),
        ('{"kind": "client", "schema_version": 2}', "damaged"),
        ("\xff\xfe", "no result"),
        ("[" * 100_000, "no result"),
    ],
)
def test_what_is_no_result_is_one_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content.encode("latin-1"))
    done = fork_cli("report", str(path))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert message in done.stderr


@pytest.mark.parametrize("field", ["histogram", "histogram_all", "histogram_from_slot"])
@pytest.mark.parametrize("kind", ["client", "lab"])
def test_a_damaged_histogram_is_one_line_in_every_format(field: str, kind: str, tmp_path: Path) -> None:
    document = json.loads((ROOT / "tests" / "results_v1" / f"{kind}.json").read_text())
    summary = document["variants"][-1]["summary"] if kind == "lab" else document["summary"]
    summary[field] = "HISTzzzz"
    path = tmp_path / "result.json"
    path.write_text(json.dumps(document))
    for form in ("text", "markdown", "html"):
        done = fork_cli("report", "--format", form, str(path))
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), form
        assert "damaged" in done.stderr


def test_what_cannot_be_merged_is_one_line(tmp_path: Path, kept: Kept) -> None:
    client, watch = kept("a"), kept("w", kind="watch")
    cut = tmp_path / "cut.json"
    cut.write_text(client.read_text()[:-40])
    for files, message in (
        ((client, client), "same run"),
        ((watch, kept("x", kind="watch")), "only watch results"),
        ((client, tmp_path), "cannot be read"),
        ((client, cut), "cut off"),
    ):
        done = fork_cli("report", *map(str, files))
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert message in done.stderr


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--max-error-rate", "1%"), 0, "--max-error-rate 1.0% holds: observed 0.2%"),
        (("--max-error-rate", "0.1%"), 3, "does not hold: observed 0.2%"),
        (("--max-p99", "50ms"), 0, "--max-p99 50ms holds"),
        (("--max-p99", "50us"), 3, "--max-p99 50us does not hold"),
        (("--max-race-losses", "0"), 4, "cannot be told"),
        (("--max-race-losses", "20"), 0, "holds"),
        (("--max-p99", "50"), 0, "--max-p99 50s holds"),
        (("--max-p99", "soon"), 2, "--max-p99"),
        (("--max-race-losses", "-1"), 2, "--max-race-losses"),
        (("--max-eror-rate", "1%"), 2, "--max-eror-rate"),
    ],
)
def test_limits_are_printed_with_what_was_observed(
    kept: Kept, options: tuple[str, ...], code: int, said: str
) -> None:
    done = fork_cli("report", str(kept("a", failed=20)), *options)
    assert done.returncode == code, done
    assert said in done.stdout + done.stderr


def test_nothing_dialled_holds_no_limit(kept: Kept) -> None:
    done = fork_cli("report", str(kept("a", attempted=0)), "--max-error-rate", "100%")
    assert (done.returncode, "nothing was dialled" in done.stderr) == (3, True)


def test_a_killed_run_leaves_a_stream_up_to_its_last_period(tmp_path: Path, port: int) -> None:
    stream = tmp_path / "stream.json"
    client = start_cli("client", "-r", f"127.0.0.1:{port}", "-d", "5000", "-c", "1", "-s", "1", "--json")
    assert client.stdout
    lines: list[str] = []
    while sum('"event": "period"' in line for line in lines) < 2:
        lines.append(client.stdout.readline())
    client.kill()
    rest = client.communicate(timeout=SOON_S)[0]
    stream.write_text("".join(lines) + rest[: len(rest) // 2] + '{"event": "per')
    result = read(stream)
    assert isinstance(result, ClientResult)
    periods = [json.loads(line)["summary"] for line in lines if '"event": "period"' in line]
    assert result.summary.attempted >= sum(each["attempted"] for each in periods) > 0
    assert result.cut_off
    assert "was cut off" in fork_cli("report", str(stream)).stdout


def test_a_stream_and_the_file_of_its_run_agree(tmp_path: Path, port: int) -> None:
    out, stream = tmp_path / "out.json", tmp_path / "stream.json"
    done = fork_cli(
        "client", "-r", f"127.0.0.1:{port}", "--count", "20", "-d", "1000", "--json", "-o", str(out)
    )
    stream.write_text(done.stdout)
    assert read(stream) == read(out)


def test_an_output_that_cannot_be_written_leaves_the_old_one_whole(tmp_path: Path, kept: Kept) -> None:
    """A limit on the size of files stands for a full disk."""
    client, out = kept("a"), tmp_path / "out.md"
    out.write_text("old")
    report = f"exec {sys.executable} -m snat_race report {client} --format json -o {out}"
    command = f"ulimit -f 1; trap '' XFSZ; {report}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr.count("\n")) == (4, 1), done
    assert out.read_text() == "old"
    assert list(tmp_path.glob(".snat_race*")) == []


def test_of_several_rules_one_is_chosen_for_a_distribution(tmp_path: Path) -> None:
    path = tmp_path / "lab.json"
    path.write_text(small_lab().model_dump_json())
    several = fork_cli("report", str(path), "--format", "hgrm")
    assert (several.returncode, several.stdout, several.stderr.count("\n")) == (2, "", 1)
    assert "'masquerade', 'masquerade fully-random'" in several.stderr
    other = fork_cli("report", str(path), "--format", "hgrm", "--variant", "no nat")
    assert (other.returncode, "no rule 'no nat'" in other.stderr) == (2, True)
    chosen = fork_cli("report", str(path), "--format", "hgrm", "--variant", "masquerade fully-random")
    assert (chosen.returncode, "TotalCount     =     1557" in chosen.stdout) == (0, True)
    unused = fork_cli("report", str(path), "--variant", "masquerade")
    assert (unused.returncode, "--format hgrm" in unused.stderr) == (2, True)


def test_a_watch_has_no_distribution(kept: Kept) -> None:
    done = fork_cli("report", str(kept("w", kind="watch")), "--format", "hgrm")
    assert (done.returncode, "has no latencies" in done.stderr) == (2, True)


@pytest.mark.parametrize("form", ["markdown", "csv", "html", "json", "text"])
@pytest.mark.parametrize("kind", ["lab", "doctor", "trace"])
def test_every_kind_has_every_form(tmp_path: Path, kind: str, form: str) -> None:
    result = {"lab": small_lab, "doctor": small_doctor, "trace": small_trace}[kind]()
    path = tmp_path / "result.json"
    path.write_text(result.model_dump_json())
    done = fork_cli("report", str(path), "--format", form)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) >= 3


def test_what_two_parts_warn_of_alike_is_said_once() -> None:
    warning = MeasurementWarning(
        kind=WarningKind.workers_share_cpus, values={"workers": 3, "cpus": 2, "lanes": 3}
    )
    clients = [
        ClientResult.model_validate(small_client(name).model_dump() | {"warnings": [warning]})
        for name in "ab"
    ]
    assert merged(clients, []).warnings == [warning]


def test_an_error_without_a_name_of_its_own_is_called_by_its_errno() -> None:
    client = small_client("a")
    summary = client.summary.model_dump() | {"connected": 9_997, "failed": 3}
    summary |= {"errors": {"EPERM": 2, "ENOBUFS": 1}}
    summary = Summary.model_validate(summary)
    diagnosis = diagnose(summary, client.kernel)
    failed = ClientResult.model_validate(client.model_dump() | {"summary": summary, "diagnosis": diagnosis})
    page = text(document(failed))
    assert "failed: 2 EPERM, 1 ENOBUFS" in page
    assert "connect() failed with ENOBUFS 1 time" in page
    assert "other_error" not in page
