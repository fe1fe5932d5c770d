"""What users get wrong: one line, naming the option and what to do, exit 2, nothing lost."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snat_race.cli import parsing
from snat_race.errors import EnvironmentLacks, SnatRaceError, Unavailable, UsageError
from snat_race.load.endpoint import Endpoint
from tests.conftest import fork_cli
from tests.fuzz_targets import PARSERS


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10s", 10),
        ("2m", 120),
        ("500ms", 0.5),
        ("1.5h", 5400),
        ("3", 3),
        ("0.25", 0.25),
        ("1m30s", 90),
        ("500us", 0.0005),
        ("500µs", 0.0005),
        ("1h2m3.5s", 3723.5),
        (" 1d ", 86_400),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parsing.duration_s(text) == pytest.approx(seconds)
    assert parsing.duration_ns(text) == round(seconds * 1e9)


@pytest.mark.parametrize(
    "text", ["", "0", "0s", "-1s", "s", "1x", "1 s", "1m 30s", "1e3", "٣s", "9" * 5000, "1:30"]
)
def test_durations_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration above 0; write 10s, 1m30s or 500ms"):
        parsing.duration_ns(text)


@given(st.integers(min_value=1, max_value=10_000_000 * 10**9 - 1))
def test_a_duration_reads_back_as_it_is_printed(duration_ns: int) -> None:
    printed = str(parsing.Seconds(duration_ns / 1e9))
    assert parsing.duration_ns(printed) == pytest.approx(duration_ns, rel=1e-9, abs=1)
    assert parsing.duration_ns(f"{duration_ns // 10**9}s{duration_ns % 10**9}ns") == duration_ns


@pytest.mark.parametrize(
    ("seconds", "printed"),
    [(2, "2s"), (90, "1m30s"), (0.5, "500ms"), (5400, "1h30m"), (0.0000015, "1us500ns")],
)
def test_durations_print_as_people_write_them(seconds: float, printed: str) -> None:
    assert str(parsing.Seconds(seconds)) == printed


@pytest.mark.parametrize(("text", "count"), [("23", 23), ("50k", 50_000), ("2M", 2_000_000)])
def test_counts(text: str, count: int) -> None:
    assert parsing.count(text) == count


@given(st.integers(min_value=1, max_value=10**12), st.sampled_from(["", "k", "K", "m", "M"]))
def test_any_count(number: int, unit: str) -> None:
    assert parsing.count(f"{number}{unit}") == number * {"": 1, "k": 1000, "m": 1_000_000}[unit.lower()]


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("0.1%", 0.001),
        ("0.001", 0.001),
        ("0", 0),
        ("100%", 1),
        ("0.1 %", 0.001),
        ("1e-3", 0.001),
        (".5%", 0.005),
    ],
)
def test_rates(text: str, rate: float) -> None:
    assert parsing.share(text) == pytest.approx(rate)


@pytest.mark.parametrize("text", ["", "%", "nan", "inf", "-1", "101%", "1.1", "half", "1%%"])
def test_rates_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="is no share from 0 to 1"):
        parsing.share(text)


@pytest.mark.parametrize(("text", "number"), [("1.3e3", 1300), (".5", 0.5), (" 7 ", 7)])
def test_numbers_above_zero(text: str, number: float) -> None:
    assert parsing.above_zero(text) == number


def test_a_duration_that_is_too_long_is_said_to_be() -> None:
    with pytest.raises(ValueError, match="is longer than 115 days"):
        parsing.duration_ns("200d")


@given(st.integers(1, 65535), st.integers(1, 65535))
def test_any_port_range(one: int, other: int) -> None:
    text = f"{one}-{other}"
    if one <= other:
        assert parsing.port_range(text) == (one, other)
    else:
        with pytest.raises(ValueError, match="must rise"):
            parsing.port_range(text)


@pytest.mark.parametrize(("text", "cpus"), [("0", (0,)), ("0,2-5", (0, 2, 3, 4, 5)), ("3, 1", (3, 1))])
def test_lists_of_cpus(text: str, cpus: tuple[int, ...]) -> None:
    assert parsing.cpu_list(text) == cpus


@given(st.text(max_size=20) | st.from_regex(r"[0-9.,%+-]{0,12}[a-zµ]{0,2}", fullmatch=True))
def test_no_text_makes_a_parser_fail_otherwise_than_in_words(text: str) -> None:
    for parser in PARSERS:
        try:
            parser(text)
        except ValueError as refused:
            assert "\n" not in str(refused)  # noqa: PT017
            assert len(str(refused)) < 300  # noqa: PT017


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("10.0.0.1:80", Endpoint("10.0.0.1", 80, 80)),
        ("[::1]:80", Endpoint("::1", 80, 80)),
        (":8080-8087", Endpoint("0.0.0.0", 8080, 8087)),
        ("host.example:1", Endpoint("host.example", 1, 1)),
    ],
)
def test_endpoints(text: str, endpoint: Endpoint) -> None:
    assert Endpoint.parse(text, "0.0.0.0") == endpoint
    assert str(endpoint).removeprefix("0.0.0.0") == text


@pytest.mark.parametrize(
    "text", ["", "host", "host:", "host:0", "host:65536", "::1:80", "h:9-8", "h:-", "h:٣"]
)
def test_endpoints_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--remote-addr: "), parsing.naming("--remote-addr"):
        Endpoint.parse(text, "")


BAD = [
    (["client", "-r", "no-such-host.invalid:80"], "--remote-addr"),
    (["client", "-r", "127.0.0.1"], "--remote-addr"),
    (["client", "-r", "127.0.0.1:no-such-service"], "--remote-addr"),
    (["client", "-r", "127.0.0.1:99999"], "--remote-addr"),
    (["client", "-r", "127.0.0.1:80-90"], "--remote-addr"),
    (["client", "-r", "127.0.0.1:" + "9" * 5000], "--remote-addr"),
    (["client", "--count", "9" * 5000], "--count"),
    (["client", "-l", "127.0.0.1", "-l", "127.0.0.1"], "--local-ip"),
    (["client", "--output", "/tmp/" + "x" * 300], "--output"),
    (["client", "-l", "999.1.1.1"], "--local-ip"),
    (["client", "-l", "192.0.2.77"], "--local-ip"),
    (["client", "-c", "0"], "--workers"),
    (["client", "-c", "1", "-l", "127.0.0.1", "-l", "127.0.0.2"], "--workers"),
    (["client", "-c", "-3"], "--workers"),
    (["client", "-c", "4097"], "--workers"),
    (["client", "-c", "many"], "--workers"),
    (["client", "-t", "-1"], "--timeout-ms"),
    (["client", "-s", "0"], "--summary-interval-sec"),
    (["client", "-d", "-1"], "--dial-interval-us"),
    (["client", "-d", "0"], "--dial-interval-us"),
    (["client", "--duration", "soon"], "--duration"),
    (["client", "--duration", ""], "--duration"),
    (["client", "--count", "0"], "--count"),
    (["client", "--warmup", "-2s"], "--warmup"),
    (["client", "--max-error-rate", "lots"], "--max-error-rate"),
    (["client", "--source-ports", "9000-8000"], "--source-ports"),
    (["client", "--source-ports", "9000"], "--source-ports"),
    (["client", "--source-ports", "9000-9001", "-c", "5"], "--source-ports"),
    (["client", "-c", "5", "--lanes", "2"], "--lanes"),
    (["client", "--mode", "sideways"], "--mode"),
    (["client", "--output", "/no/such/folder/x.json"], "--output"),
    (["client", "--output", "/"], "--output"),
    (["client", "--no-such-option"], "--no-such-option"),
    (["server", "-r", "127.0.0.1:0"], "--local-addr"),
    (["server", "-r", "192.0.2.77:8080"], "--local-addr"),
    (["server", "-c", "0"], "--workers"),
    (["lab", "--containers", "1"], "--containers"),
    (["lab", "--workers", "0"], "--workers"),
    (["lab", "--interval-us", "0"], "--interval-us"),
    (["lab", "--timeout-ms", "0"], "--timeout-ms"),
    (["lab", "--duration", "0s"], "--duration"),
    (["lab", "--variant", "masqerade"], "--variant"),
    (["lab", "--output", "/no/such/folder/x.json"], "--output"),
    (["nonsense"], "nonsense"),
]


@pytest.mark.parametrize(("args", "named"), BAD, ids=lambda value: " ".join(value)[:60] if value else "")
def test_bad_input_is_one_line_and_exit_2(args: list[str], named: str) -> None:
    done = fork_cli(*args)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert named in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bad_environment_variable_is_named() -> None:
    done = fork_cli("client", GO_ROUTINES="abc")
    assert done.returncode == 2
    assert "GO_ROUTINES" in done.stderr


def test_a_checked_output_is_left_as_it_was(tmp_path: Path) -> None:
    kept = tmp_path / "result.json"
    kept.write_text("precious")
    done = fork_cli("client", "--output", str(kept), "-r", "127.0.0.1:bad")
    assert done.returncode == 2
    assert kept.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [kept]


def test_help_needs_no_command() -> None:
    done = fork_cli()
    assert "Usage" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("kind", [UsageError, EnvironmentLacks, Unavailable])
def test_what_a_lower_floor_says_is_named_once(kind: type[SnatRaceError]) -> None:
    with pytest.raises(kind, match=r"^--netns: there is none$"), parsing.naming("--netns"):
        raise kind("there is none")
    with pytest.raises(kind, match=r"^--netns: there is none$"), parsing.naming("--netns"):
        raise kind("--netns: there is none")
    with pytest.raises(SnatRaceError, match=r"^a worker died$"), parsing.naming("--netns"):
        raise SnatRaceError("a worker died")
