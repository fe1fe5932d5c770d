"""How the command line feels: the Go tool's spellings, help on any width, mistakes, locales, quiet."""

import ast
import json
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

import snat_race
from snat_race.cli import arguments, help_text, parameters
from snat_race.cli.app import app, understood
from snat_race.cli.arguments import Spelling
from snat_race.cli.program import this_program
from snat_race.errors import UsageError
from snat_race.load import endpoint
from snat_race.load.endpoint import Endpoint
from snat_race.report.wording.program import Program
from snat_race.runs import worker_placement
from tests.conftest import (
    ROOT,
    SOON_S,
    RunningServer,
    clean_environment,
    fork_cli,
    parsed_cli,
    run_cli,
)
from tests.results import small_client

GROUP: Any = typer.main.get_command(app)
COMMANDS = [command for command in GROUP.commands.values() if not command.hidden]
NAMES = [command.name for command in COMMANDS]

PROGRAM = {
    "version": Spelling("--version", takes_value=False),
    "V": Spelling("--version", takes_value=False),
}
CLIENT = {
    name: Spelling(long, takes_value=takes_value)
    for names, long, takes_value in (
        (("remote-addr", "r"), "--remote-addr", True),
        (("workers", "c", "go-routines"), "--workers", True),
        (("dial-interval-us", "d"), "--dial-interval-us", True),
        (("quiet", "q"), "--quiet", False),
        (("help", "h"), "--help", False),
    )
    for name in names
}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("", "--help"),
        ("help", "--help"),
        ("h", "--help"),
        ("help client", "client --help"),
        ("h client", "client --help"),
        ("help nonsense", "nonsense --help"),
        ("-version", "--version"),
        ("-V", "--version"),
        ("client", "client"),
        ("client -remote-addr X", "client --remote-addr X"),
        ("client -remote-addr=X", "client --remote-addr=X"),
        ("client --remote-addr=X", "client --remote-addr=X"),
        ("client -r X", "client --remote-addr X"),
        ("client -r=X", "client --remote-addr=X"),
        ("client --r X", "client --remote-addr X"),
        ("client --r=X", "client --remote-addr=X"),
        ("client -r=a=b", "client --remote-addr=a=b"),
        ("client -r=", "client --remote-addr="),
        ("client -c=1 -d=1000", "client --workers=1 --dial-interval-us=1000"),
        ("client -go-routines 1", "client --workers 1"),
        ("client --go-routines=1", "client --workers=1"),
        ("client -d 1000", "client --dial-interval-us 1000"),
        ("client -d -1", "client --dial-interval-us -1"),
        ("client -d1000", "client -d1000"),
        ("client -h", "client --help"),
        ("client -help", "client --help"),
        ("client -q -r X", "client --quiet --remote-addr X"),
        ("client -q=true", "client --quiet=true"),
        ("client -r -c", "client --remote-addr -c"),
        ("client --r", "client --remote-addr"),
        ("client -unknown -x=1", "client -unknown -x=1"),
        ("client -r X -- -c 1", "client --remote-addr X -- -c 1"),
        ("client - -5 -", "client - -5 -"),
        ("nonsense -r X", "nonsense -r X"),
    ],
)
def test_command_lines_of_the_go_tool_are_rewritten(written: str, meant: str) -> None:
    assert arguments.rewritten(written.split(), PROGRAM, {"client": CLIENT}) == meant.split()


@pytest.mark.parametrize("command", COMMANDS, ids=NAMES)
def test_every_option_is_understood_with_one_dash_and_with_two(command: Any) -> None:
    for option in command.params:
        if option.param_type_name != "option":
            continue
        long = max(option.opts, key=len)
        for name in (name.lstrip("-") for name in option.opts):
            for dashes in ("-", "--"):
                assert understood(GROUP, [command.name, f"{dashes}{name}"]) == [command.name, long]
                assert understood(GROUP, [command.name, f"{dashes}{name}=x"]) == [command.name, f"{long}=x"]


@pytest.mark.parametrize("argument", ["\udcff", "a\ud800"], ids=ascii)
def test_what_no_file_system_can_hold_is_refused(argument: str) -> None:
    with pytest.raises(UsageError, match="is not UTF-8"):
        arguments.rewritten(["report", argument], PROGRAM, {"report": {}})


def test_what_is_rewritten_is_parsed() -> None:
    words = "client -remote-addr 10.0.0.1:http -go-routines=3 -t=0 -d 1000 -local-ip localhost"
    values = parsed_cli(words.split())
    assert values["remote_addr"] == "10.0.0.1:http"
    assert (values["workers"], values["timeout_ms"], values["dial_interval_us"]) == (3, 0, 1000)
    assert values["local_ip"] == ["localhost"]


@pytest.mark.parametrize("asked", [(), ("help",), ("h",), ("-h",), ("--help",), ("-help",)])
def test_all_ways_to_ask_for_help_are_one(asked: tuple[str, ...]) -> None:
    done = fork_cli(*asked)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: snat-race [OPTIONS] COMMAND")


@pytest.mark.parametrize("asked", [("help", "client"), ("h", "client"), ("c", "-h"), ("client", "--h")])
def test_help_of_a_command(asked: tuple[str, ...]) -> None:
    assert fork_cli(*asked).stdout.replace(" c ", " client ") == fork_cli("client", "--help").stdout


@pytest.mark.parametrize("asked", ["-V", "--version", "-version"])
def test_the_version(asked: str) -> None:
    done = fork_cli(asked)
    assert (done.returncode, done.stdout) == (0, f"snat-race {snat_race.__version__}\n")


# help


@pytest.mark.parametrize("columns", [40, 80, 100, 200])
@pytest.mark.parametrize("name", ["", *NAMES])
def test_help_fits_the_terminal_and_loses_nothing(name: str, columns: int) -> None:
    text = fork_cli(*filter(None, [name]), "--help", COLUMNS=str(columns)).stdout
    wrapped = [line for line in text.splitlines() if len(line.removesuffix(" \\").split()) > 1]
    assert max(map(len, wrapped)) <= min(columns, 100)  # one word alone, as a long path is, is not broken
    wide = fork_cli(*filter(None, [name]), "--help", COLUMNS="100").stdout
    assert re.sub(r"[\s\\#]", "", text) == re.sub(r"[\s\\#]", "", wide)


@pytest.mark.parametrize("name", NAMES)
def test_help_speaks_no_python(name: str) -> None:
    text = fork_cli(name, "--help").stdout
    assert not re.search(r"<\w+>|None|bool\b|\bstr\b|\bint\b|x<=|pydantic|typer", text)
    assert "[default: " in text or name in ("doctor", "mitigate", "forecast")


@pytest.mark.parametrize("command", COMMANDS, ids=NAMES)
def test_every_parameter_has_help_and_a_name_for_its_value(command: Any) -> None:
    for parameter in command.params:
        assert parameter.help, parameter.name
        assert parameter.help.endswith("."), parameter.help
        assert getattr(parameter, "is_flag", False) or parameter.metavar, parameter.name


def examples_of(command: Any) -> list[str]:
    return [line for line in command.epilog.splitlines()[1:] if line and not line.startswith("#")]


def unbroken(text: str) -> str:
    """Commands of a help, each on one line."""
    return re.sub(r" \\\n *", " ", text)


@pytest.mark.parametrize("command", [GROUP, *COMMANDS], ids=["program", *NAMES])
def test_help_ends_with_two_or_three_examples_that_parse(command: Any) -> None:
    examples = examples_of(command)
    assert 2 <= len(examples) <= 3
    shown = unbroken(fork_cli(*filter(None, [command.name]), "--help").stdout) + "\n"
    for example in examples:
        words = shlex.split(example.removeprefix("sudo ").replace("$(which snat-race)", "snat-race"))
        assert words.pop(0) == "snat-race"
        if "--help" not in words:
            parsed_cli(words)
        assert f"  {help_text._here(example, this_program())}\n" in shown


def test_an_example_has_the_path_that_sudo_needs_and_the_name_that_the_shell_knows() -> None:
    as_root, plain = (
        "sudo $(which snat-race) doctor --netns snat-race",
        "snat-race lab --rule 'snat-race lab'",
    )
    found = Program(words=("/opt/a b/snat-race",))
    assert help_text._here(as_root, found) == "sudo '/opt/a b/snat-race' doctor --netns snat-race"
    assert help_text._here(plain, found) == plain
    unknown = Program(words=("/opt/python", "-m", "snat_race"), on_path=False)
    assert help_text._here(plain, unknown) == "/opt/python -m snat_race lab --rule 'snat-race lab'"


def test_an_example_broken_over_lines_is_the_same_command() -> None:
    text = fork_cli("client", "--help", COLUMNS="40").stdout
    shown = text.partition("Examples:\n")[2]
    commands = "\n".join(line for line in shown.splitlines() if not line.lstrip().startswith("#"))
    joined = [shlex.split(line) for line in commands.replace("\\\n", "").splitlines() if line.strip()]
    examples = [
        help_text._here(example, this_program()) for example in examples_of(GROUP.commands["client"])
    ]
    assert joined == [shlex.split(example) for example in examples]


def test_quoted_words_of_an_example_are_never_broken() -> None:
    lines = list(help_text._continued("snat-race lab --rule 'iptables -t nat -A POSTROUTING'", 30))
    assert "'iptables -t nat -A POSTROUTING'" in "".join(lines)
    assert all(line.endswith("\\") for line in lines[:-1])


# mistakes


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("lab --topology brigde", "--topology: there is no 'brigde'; did you mean 'bridge'?"),
        (
            "lab --backend xyz",
            "--backend: there is no 'xyz'; there are netlink, nft, iptables, iptables-legacy",
        ),
        ("lab --expect norace", "--expect: there is no 'norace'; did you mean 'no-race' or 'race'?"),
        ("lab --caches hott", "--caches: there is no 'hott'; did you mean 'hot'?"),
        (
            "lab --scenario tcp-snatt",
            "--scenario: unknown scenario 'tcp-snatt'; did you mean 'tcp-snat' or",
        ),
        ("client --mode rendez-vous", "--mode: there is no 'rendez-vous'; did you mean 'rendezvous'?"),
        ("client --close rest", "--close: there is no 'rest'; did you mean 'rst'?"),
        ("report --format htm x", "--format: there is no 'htm'; did you mean 'html'?"),
        ("compare --fail-if moore x y", "--fail-if: there is no 'moore'; did you mean 'more'?"),
        ("clent", "there is no command 'clent'; did you mean 'client'?"),
        ("client --timeout 5", "there is no option --timeout; did you mean '--timeout-ms'?"),
        ("client -c", "--workers: needs a value"),
        ("client -c=", "--workers: '' is no whole number; give 1 to 4096"),
        ("client -c 1.5", "--workers: '1.5' is no whole number; give 1 to 4096"),
        (
            "client -c 99999999999999999999",
            "--workers: '99999999999999999999' is out of range; give 1 to 4096",
        ),
        ("client --max-race-losses -1", "--max-race-losses: '-1' is out of range; give 0 or more"),
        ("client --max-p99 soon", "--max-p99: 'soon' is no duration above 0; write 10s, 1m30s or 500ms"),
        ("server -l :80", "there is no option -l; did you mean '--local-addr'?"),
        ("watch -n 1", "there is no option -n; did you mean '--netns'?"),
        ("client -x", "there is no option -x; see"),
        ("client extra", "takes no such argument: extra; see 'snat-race client --help'"),
        (
            "lab --containers 1",
            "--containers: tcp-snat needs two clients or more that meet; give 2 or more",
        ),
        ("lab --duration 50ms", "--duration: 50ms is out of range; give 100ms to 1h"),
        ("lab --duration 100ms --interval-us 60000", "--duration: is shorter than two intervals"),
        ("lab --scenario dns --window", "--window: dns has no two dialers to move apart; take tcp-snat"),
        ("lab --caches hot --workers 2048", "--caches: needs a CPU for each dialer; lower --containers or"),
        ("lab --containers 64 --workers 65", "--workers: 64 containers can have 64 each at most"),
        ("watch --interval 1ms", "--interval: 1ms is out of range; give 10ms to 24h"),
        (
            "forecast --containers 2 --rate-per-container 0",
            "--rate-per-container: '0' is no number above 0",
        ),
        ("report", "FILE... is missing; see 'snat-race report --help'"),
    ],
)
def test_mistakes_are_one_line_with_what_to_write(written: str, said: str) -> None:
    done = fork_cli(*written.split(" "))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert this_program().addressed(said) in done.stderr
    assert not re.search("Value error|Input should|pydantic|env var", done.stderr)


@pytest.mark.parametrize("variable", ["WORKERS", "GO_ROUTINES"])
def test_a_mistake_in_a_variable_names_it(variable: str) -> None:
    done = fork_cli("server", **{variable: "many"})
    assert f"--workers (from the variable {variable}): 'many' is no whole number" in done.stderr


# addresses


@pytest.mark.parametrize(
    ("text", "port"), [("10.0.0.1:http", 80), (":https", 443), ("[::1]:http", 80), ("host:http-alt", 8080)]
)
def test_a_service_stands_for_its_port(text: str, port: int) -> None:
    assert Endpoint.parse(text, "127.0.0.1").low == port


def test_a_client_tries_the_addresses_of_a_name_in_turn(
    server: RunningServer, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def both(*_: object, **__: object) -> list[Any]:
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
        ]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    assert worker_placement.find_remote(f"name:{port}", 500).text == f"127.0.0.1:{port}"
    assert server.stop() == 1
    assert worker_placement.find_remote(f"name:{port}", 500).text == f"[::1]:{port}", (
        "none answers: the first"
    )


def test_a_family_that_the_kernel_lacks_is_no_answer() -> None:
    """As IPv6 is with ipv6.disable=1: then the next address of a name is tried."""
    assert not endpoint.answers(socket.AF_X25, ("127.0.0.1", 9), 0.1)


def test_the_local_address_may_be_a_name_or_empty_and_the_timeout_none(server: RunningServer) -> None:
    line = f"client -r={server.address} -local-ip localhost -c=1 -t 0 -d 5000 --count 5"
    done = fork_cli(*line.split())
    assert done.returncode == 0, done.stderr
    assert fork_cli(*f"client -r {server.address} -c 1 -d 5000 --count 2".split(), "-l", "").returncode == 0
    assert server.stop() == 7


def test_a_server_says_when_it_is_ready(server: RunningServer) -> None:
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}"
    assert re.match(f"{stamp} Ready to accept connections on {server.address}", server.first_line)


# quiet


def test_quiet_is_the_summary_or_the_verdict_only(server: RunningServer, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    done = fork_cli(*f"client -q -r {server.address} -c 1 -d 5000 -s 1 --duration 1.5s -o {out}".split())
    assert done.returncode == 0, done.stderr
    assert "Starting" not in done.stdout
    assert "Summary of the last" not in done.stdout
    assert re.match(r"\S+ Summary of the whole run", done.stdout)
    assert fork_cli("report", "-q", str(out)).stdout.count("\n") == 1
    assert "--quiet" in fork_cli("report", "-q", "--format", "csv", str(out)).stderr
    quiet_watch = fork_cli("watch", "-q", "--interval", "50ms", "--duration", "200ms")
    assert quiet_watch.stdout.count("\n") == 1
    assert len(fork_cli("doctor", "--quiet").stdout.splitlines()) == 1
    forecast = "forecast -q --window-ns 1300 --containers 20 --rate-per-container 50"
    assert fork_cli(*forecast.split()).stdout.count("\n") == 1


def test_a_quiet_comparison(kept: Any) -> None:
    done = fork_cli("compare", "--quiet", str(kept("a", failed=0)), str(kept("b", failed=400)))
    assert done.stdout.count("\n") == 1
    assert "more" in done.stdout


# results


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"run_id": None}, "run_id is missing"),
        ({"summary": 7}, "summary cannot be '7'"),
        ({"elapsed_s": "long"}, "elapsed_s cannot be 'long'"),
    ],
)
def test_damage_to_a_result_is_told_in_our_words(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    document = json.loads(small_client("a", failed=0).model_dump_json()) | change
    path = tmp_path / "damaged.json"
    path.write_text(json.dumps({name: value for name, value in document.items() if value is not None}))
    done = fork_cli("report", str(path))
    assert done.returncode == 2
    assert done.stderr.endswith(f"damaged or was cut off ({said}); give a file of --output or --json\n")


# events


def test_every_event_has_its_name_and_the_schema_version(server: RunningServer) -> None:
    lines = [
        f"client -r {server.address} -c 1 -d 5000 -s 1 --duration 1.2s --json",
        "watch --interval 50ms --duration 200ms --json",
        "doctor --json",
        "forecast --window-ns 1300 --containers 20 --rate-per-container 50 --json",
    ]
    for line in lines:
        events = [json.loads(event) for event in fork_cli(*line.split()).stdout.splitlines()]
        assert events, line
        for event in events:
            assert list(event)[:2] == ["event", "schema_version"], line


# locales

LOCALES = [
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "iso-8859-1"},
    {"PYTHONIOENCODING": "ascii", "PYTHONUNBUFFERED": "1"},
    {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
]


@pytest.mark.parametrize("locale", LOCALES, ids=lambda locale: " ".join(locale.values()))
@pytest.mark.parametrize("form", ["text", "markdown", "json", "csv", "html"])
def test_a_report_survives_any_locale(tmp_path: Path, locale: dict[str, str], form: str) -> None:
    path = tmp_path / "é·▁.json"
    result = small_client("a", failed=20)
    result.spec["remote_addr"] = "sérvér·▁:80"
    path.write_text(result.model_dump_json(), encoding="utf-8")
    if form == "html":
        pytest.importorskip("matplotlib")
        pytest.importorskip("jinja2")
    # Python looks at a locale as it starts. An encoding alone is that of its streams: one start tries that.
    run = run_cli if form == "text" or "LC_ALL" in locale else fork_cli
    done = run("report", str(path), "--format", form, **locale)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "LC_ALL" not in locale or done.stdout.isascii()
    if form == "json":
        assert json.loads(done.stdout)["spec"]["remote_addr"] == "sérvér·▁:80"


@pytest.mark.parametrize("locale", LOCALES, ids=lambda locale: " ".join(locale.values()))
def test_a_run_survives_any_locale(locale: dict[str, str]) -> None:
    done = run_cli("watch", "--interval", "50ms", "--duration", "200ms", **locale)
    assert done.returncode == 0, done.stderr
    done = run_cli("report", "/no/sérvér·▁.json", **locale | {"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 2
    # What a locale without UTF-8 makes of a name are surrogates, which no terminal can show.
    assert "/no/s\\xe9rv\\xe9r\\xb7\\u2581.json" in done.stderr or "/no/s??rv??r?????.json" in done.stderr


# settings


@pytest.mark.parametrize("path", ["runs/settings.py", "lab/settings.py"])
def test_every_setting_has_a_comment_and_a_keyword(path: str) -> None:
    text = (ROOT / "snat_race" / path).read_text(encoding="utf-8")
    lines = text.splitlines()
    classes = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
    settings = [node for node in classes if node.name.endswith("Settings")]
    assert settings
    for node in settings:
        assert "kw_only=True" in ast.unparse(node.decorator_list[0])
        for field in node.body:
            if isinstance(field, ast.AnnAssign):
                assert re.search(r"  # .{10,}", lines[field.lineno - 1]), lines[field.lineno - 1]


def test_all_options_are_in_one_module() -> None:
    for module in (ROOT / "snat_race" / "cli").glob("*.py"):
        if module.name != Path(parameters.__file__).name:
            assert not re.search(r"\b(Option|Argument)\(", module.read_text(encoding="utf-8")), module


def test_help_starts_neither_pydantic_nor_rich() -> None:
    loaded = "import sys\nfrom snat_race.cli import app\nsys.argv[1:] = ['client', '--help']\n"
    loaded += "try:\n    app.main()\nexcept SystemExit:\n    pass\n"
    loaded += (
        "print({'pydantic', 'rich', 'numpy', 'psutil', 'pyroute2'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", loaded], capture_output=True, text=True, check=True, timeout=SOON_S,
        env=clean_environment(),
    )  # fmt: skip
    assert done.stderr == "set()\n"
