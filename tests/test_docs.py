"""README.md and docs/: their commands are taken, their outputs printed, their links lead somewhere."""

import contextlib
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from scripts import documentation
from scripts.documentation import PROMPT, ROOT, Block, blocks, masked, missing, pages, written_down
from snat_race.cli import app
from snat_race.cli.parameters import ReportFormat
from snat_race.cli.program import in_container
from snat_race.kernel import counters, tools
from snat_race.kernel.netns import Namespace
from snat_race.lab.scenarios import SCENARIOS
from snat_race.lab.topology import IPV4, build
from snat_race.lab.variants import VARIANTS
from snat_race.results.conclusions import CauseName, WarningKind
from snat_race.results.counters import CONNTRACK_COUNTERS, TCP_COUNTERS
from tests.conftest import (
    IPTABLES,
    PRIVATE,
    TWO_CPUS,
    fork_cli,
    in_sandbox,
    lab,
    parsed_cli,
    start_cli,
    until_enough,
)
from tests.stage import forget_connections

README = ROOT / "README.md"
PAGES = pages()
BLOCKS = [block for page in PAGES for block in blocks(page)]
CONSOLES = [block for block in BLOCKS if block.language == "console"]
KINDS = {"", "same", "alike"}

OURS = "snat-race"
IMAGE_NAME = re.compile(r"(?:YOUR-REGISTRY/)?snat-race(?::[\d.]+)?")
OURSELVES = re.compile(r'"?\$\((?:which|command -v) snat-race\)"?')
MAKE_TARGETS = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
OUR_FOLDERS = ("docker", "docs", "scripts", "snat_race", "tests")
# These have no command line of ours in them; only the paths that they name are checked.
OTHERS = {"cat", "cd", "curl", "git", "grep", "head", "jq", "pip", "pipx", "sed", "tail", "wait"}
DOCKER = {"build", "compose", "push", "run", "stop"}
WHERE = {name: documentation.environment()[name] for name in ("COLUMNS", "LC_ALL", "PATH", "TZ")}
KUBECTL = {"apply", "delete", "exec", "label", "wait"}


def ident(value: Any) -> str:
    return str(value.relative_to(ROOT)) if isinstance(value, Path) else str(value)


def prose(page: Path) -> str:
    """A page without its blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


# The command lines


def words_of(command: str) -> list[list[str]]:
    """The simple commands of a line, each as its words, without redirections."""
    lexer = shlex.shlex(OURSELVES.sub(OURS, command), posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    simple: list[list[str]] = [[]]
    words = iter(lexer)
    for word in words:
        if set(word) <= set("|&;"):
            simple.append([])
        elif set(word) <= set("<>&"):
            next(words, None)
        else:
            simple[-1].append(word)
    return [each for each in simple if each]


def check(words: list[str]) -> None:
    """Fail unless a simple command is one that we, or the tools we know, would take."""
    for word in words:
        if word.split("/")[0] in OUR_FOLDERS and "/" in word:
            assert list(ROOT.glob(word)), f"there is no {word}"
    name, *rest = words
    if "=" in name or name == "sudo":
        check(rest)
    elif name == OURS:
        check_ours(rest)
    elif words[:3] == ["python", "-m", "snat_race"]:
        check_ours(words[3:])
    elif name in {"docker", "kubectl"}:
        check_engine(name, rest)
    elif name == "make":
        check_make(rest)
    elif name.startswith("scripts/"):
        assert os.access(ROOT / name, os.X_OK), f"{name} cannot be run"
    else:
        assert name in OTHERS, f"the documentation uses {name}, which nothing checks"


def check_ours(arguments: list[str]) -> None:
    if not arguments or arguments[0].startswith("-"):  # an option of the program itself
        known = {name for option in typer.main.get_command(app.app).params for name in option.opts}
        assert set(arguments) <= known | {"-h", "--help"}
        return
    with contextlib.suppress(typer.Exit):  # an option that prints something and stops
        parsed_cli(arguments)


def check_engine(name: str, rest: list[str]) -> None:
    assert rest[0] in (DOCKER if name == "docker" else KUBECTL), rest[0]
    image = next((at for at, word in enumerate(rest) if IMAGE_NAME.fullmatch(word)), None)
    if name == "docker" and rest[0] == "run" and image is not None:
        check_ours(rest[image + 1 :])
    elif "--" in rest:
        check(rest[rest.index("--") + 1 :])


def check_make(rest: list[str]) -> None:
    target = next((word for word in rest if "=" not in word), None)
    assert target is None or target in MAKE_TARGETS, f"make has no {target}"
    options = [word.partition("=")[2] for word in rest if word.startswith("ARGS=")]
    if target in {"client", "server", "lab"}:
        check_ours([target, *shlex.split(" ".join(options))])


@pytest.mark.parametrize("block", CONSOLES, ids=ident)
def test_the_commands_are_taken(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert block.kind in KINDS
    for step in block.steps:
        for words in words_of(step.command):
            check(words)


INLINE = re.compile(r"(?<!`)`((?:snat-race|make|docker|kubectl|scripts/[\w-]+) [^`]*)`(?!`)")


@pytest.mark.parametrize("page", PAGES, ids=ident)
def test_the_commands_in_sentences_are_taken(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for command in INLINE.findall(prose(page)):
        if not {"...", "[OPTIONS]"} & set(re.split(r"[ =]", command)):
            for words in words_of(command):
                check(words)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "sh"], ids=ident)
def test_the_scripts_are_taken(block: Block) -> None:
    subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
    ours = re.findall(rf"^\s*(?:sudo \$\(which )?{OURS}\)? (.*)$", block.text, re.MULTILINE)
    assert ours
    for arguments in ours:
        check_ours(shlex.split(arguments))


# The outputs


def test_our_program_is_run_from_a_path_as_long_as_the_readers() -> None:
    where = shutil.which(OURS, path=documentation.environment()["PATH"])
    assert where is not None
    assert len(documentation.portable(where)) == len(where)
    assert documentation.portable(where) == "/home/you/.local/bin/snat-race"


def answer(command: str) -> str:
    """What a command prints, without an interpreter's start if it is one of ours alone."""
    simple = words_of(command)
    if len(simple) == 1 and simple[0][0] == OURS and not set(command) & set("<>$*?'\"\\"):
        done = fork_cli(*simple[0][1:], **WHERE)
        return documentation.portable(done.stderr + done.stdout)  # as without a terminal
    return documentation.run(command)


@pytest.mark.parametrize("page", PAGES, ids=ident)
def test_outputs_that_are_always_the_same_are_current(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    lacking = [tool for tool in ("jq",) if not shutil.which(tool)]
    if lacking and any(tool in block.text for tool in lacking for block in CONSOLES if block.page == page):
        pytest.skip(f"there is no {lacking[0]}")
    current = page.read_text(encoding="utf-8")
    assert written_down(page, answer) == current, "the output is stale: run make examples"


ALIKE = [block for block in CONSOLES if block.kind == "alike"]
LABS = [block for block in ALIKE if re.match(r"\$ (make|snat-race) lab", block.text)]
STAGED = [block for block in ALIKE if block not in LABS]
FIRST_S = 1  # shorter than the documentation's; the last --duration counts


@cache
def lab_output(*arguments: str) -> str:
    done = lab(*arguments, first_s=FIRST_S, fewest=100, code=None, **WHERE).done
    return done.stderr + done.stdout


@PRIVATE
@TWO_CPUS
@pytest.mark.parametrize("block", LABS, ids=ident)
def test_a_lab_prints_what_the_documentation_shows(block: Block, every_variant: Path) -> None:
    for step in block.steps:
        (words,) = words_of(step.command)
        if "--window" in words:  # the other tests' lab has measured one; a report prints what a lab does
            printed = fork_cli("report", str(every_variant), **WHERE).stdout
        else:
            printed = lab_output(*words[2:])
        assert not missing(step.output, printed), printed


def test_every_variant_is_in_the_documentation_s_table() -> None:
    (block,) = [block for block in CONSOLES if block.text.startswith("$ snat-race lab --variant all")]
    _, _, table = block.text.partition("\nrule ")
    rows, _, _ = table.partition("\n\n")
    assert [name for name in VARIANTS if f"\n{name}  " not in rows] == []


DOCKER_RULES = """\
*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
COMMIT
"""
SERVER = f"{IPV4.destination_ip}:8080"
RACING = ["client", "-r", SERVER, "-d", "1000", "-t", "50"]


class Host:
    """What the documentation's reader has: a host with Docker's rules, two containers, a server beyond."""

    def __init__(self, folder: Path) -> None:
        topology = build(2)
        self.source, self.containers = topology.source, topology.containers
        os.environ["XTABLES_LOCKFILE"] = str(folder / "xtables.lock")
        done = tools.run(self.source, ["iptables-nft-restore"], DOCKER_RULES)
        assert done.returncode == 0, done.stderr
        with topology.destination.entered():
            self._server = start_cli("server", "-r", SERVER)
        assert self._server.stdout
        self._server.stdout.readline()

    def answer(self, command: str) -> str:
        """What a command prints on the host or, with ``docker run``, in a container.

        Clients dial meanwhile from the other container or, beside a watch or a trace, from both.
        """
        (words,) = words_of(command)
        arguments = words[words.index(OURS) + 1 :]  # the image is called as our program is
        namespace, racing = self.source, []
        if arguments[0] == "client":
            namespace, racing = self.containers[0], self.containers[1:]
        elif arguments[0] in {"watch", "trace"}:
            racing = self.containers

        def measure(duration_s: float) -> tuple[str, int]:
            longer = ["--duration", f"{duration_s:.3f}s"] if "--duration" in arguments else []
            forget_connections(self.source)  # where many ports are taken, a clash may be for want of one
            with self._racing(racing):
                before = sum(counters.read_conntrack(self.source)["insert_failed"])
                said = self._in(namespace, arguments + longer)
            return said, sum(counters.read_conntrack(self.source)["insert_failed"]) - before

        # SYNs that clashed: so many that a client, which has half of the losses, has less than the third
        # of them, where its report leaves open whose they are, once in 300 times.
        wanted = (60 if arguments[0] == "client" else 10) if racing and "--duration" in arguments else 0
        said, _ = until_enough(measure, lambda measured: measured[1] / wanted if wanted else 1, FIRST_S)
        return str(said)

    @contextlib.contextmanager
    def _racing(self, containers: list[Namespace]) -> Iterator[None]:
        clients = []
        for container in containers:
            with container.entered():
                clients.append(start_cli(*RACING))
        for client in clients:
            assert client.stdout
            client.stdout.readline()  # it is about to dial
        try:
            yield
        finally:
            for client in clients:
                client.kill()
                client.communicate()

    def _in(self, namespace: Namespace, arguments: list[str]) -> str:
        nat = f"/proc/{os.getpid()}/fd/{self.source.fd}"
        followed = ["", *arguments]
        words = [
            nat if before == "--watch-netns" else word
            for before, word in zip(followed, arguments, strict=False)
        ]
        with namespace.entered():
            said = documentation.run(shlex.join([OURS, *words]))
        said = said.replace(f"{nat}: ", "the namespace of process 1: ").replace(nat, "1")
        # Where this very machine passes for a container, advice has one option more.
        return said.replace(" --apply --dump FILE", " --apply") if in_container() else said

    def close(self) -> None:
        self._server.kill()
        self._server.communicate()


@IPTABLES
@PRIVATE
@TWO_CPUS
def test_a_host_prints_what_the_documentation_shows(tmp_path: Path) -> None:
    """On one host, and each command once."""

    def differences() -> list[str]:
        host = Host(tmp_path)
        answer_once = cache(host.answer)
        steps = [(block, step) for block in STAGED for step in block.steps]
        try:
            return [
                f"{block}: {part}\n---\n{answer_once(step.command)}"
                for block, step in steps
                for part in missing(step.output, answer_once(step.command))
            ]
        finally:
            host.close()

    different = in_sandbox(differences)
    assert not different, "\n\n".join(different)


# The pages


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def links(page: Path) -> Iterator[str]:
    yield from re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose(page)))


@pytest.mark.parametrize("page", PAGES, ids=ident)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if link.startswith(("http://", "https://")):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=ident)
def test_files_that_are_named_exist(page: Path) -> None:
    named = re.findall(r"`((?:[\w.-]+/)+[\w.-]*|\w+\.(?:py|toml|txt))`", page.read_text(encoding="utf-8"))
    for name in named:
        near = [
            folder / name
            for folder in (ROOT, ROOT / "snat_race", ROOT / "docs", ROOT / "docker/kubernetes")
        ]
        made = name.split("/")[0] in {
            "results",
            "DIR",
            "net",
            "tools",
        }  # when a command runs, or the kernel's own
        assert made or any(path.exists() for path in near), f"there is no {name}"


def test_names_in_the_walks_through_the_code_are_the_code_s() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "snat_race").rglob("*.py"))
    names = set(re.findall(r"`([A-Z]\w+|\w+\(\))`", text))
    assert names
    assert {name for name in names if not re.search(rf"\b{name.removesuffix('()')}\b", code)} == set()


def test_every_page_can_be_reached_from_the_first() -> None:
    reached, next_pages = set[Path](), [README]
    while next_pages:
        page = next_pages.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        next_pages += [(page.parent / link.partition("#")[0]).resolve() for link in links(page)
                       if not link.startswith(("http", "#"))]  # fmt: skip
    assert set(PAGES) - reached <= {ROOT / "docker" / "kubernetes" / "README.md"}


def test_the_first_page_is_short() -> None:
    assert len(README.read_bytes()) <= 10_000


def test_a_block_is_read_as_it_stands(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("text\n\n```console same\n$ one \\\n    more\nsays\n$ two\n```\n")
    (block,) = blocks(page)
    assert (block.language, block.kind, block.line) == ("console", "same", 4)
    assert [(step.command, step.output) for step in block.steps] == [
        ("one \\\n    more", "says\n"),
        ("two", ""),
    ]
    said = written_down(page, lambda command: f"answer to {command[:3]}\n")
    assert said == "text\n\n```console same\n$ one \\\n    more\nanswer to one\n$ two\nanswer to two\n```\n"


def test_only_numbers_and_breaks_may_differ() -> None:
    shown = "masquerade   251  138+113  66.4%\n...\n3 of 4.5us, CPU 0 +1, CPU 1 +2\n"
    printed = "head\nmasquerade 9 1+2 7%\nbetween\nnone of it\n17 of\n22ms, CPU 1 +3\n"
    assert not missing(shown, printed)
    assert missing("masquerade   251  138+113  race\n", printed) == ["race"]
    assert missing("3 of 4 of 5 of 6\n", printed) == ["of"]
    assert masked(f"{PROMPT}x 1.5ms") == "$ x #"


# The words


def page_text(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def explained(text: str) -> set[str]:
    """What stands as code in the first cells of a page's tables, or whole in them."""
    cells = re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE)
    return {word for cell in cells for word in (*re.findall(r"`([^`]+)`", cell), cell)}


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("diagnosis.md", list(CauseName)),
        ("results.md", list(WarningKind)),
        ("lab.md", list(SCENARIOS)),
        ("glossary.md", [*CONNTRACK_COUNTERS, *TCP_COUNTERS]),
        ("results.md", list(ReportFormat)),
    ],
)
def test_every_word_is_explained(page: str, words: list[str]) -> None:
    assert {str(word) for word in words} - explained(page_text(page)) == set()


PRIVATE_LANGUAGE = re.compile(
    r"\b(crews?|berths?|rigs?|suspects?|rehears\w+|doubts?|laps?|untold|ancestor)\b", re.IGNORECASE
)


@pytest.mark.parametrize("page", PAGES, ids=ident)
def test_there_is_one_word_for_one_thing(page: Path) -> None:
    assert PRIVATE_LANGUAGE.findall(page.read_text(encoding="utf-8")) == []
