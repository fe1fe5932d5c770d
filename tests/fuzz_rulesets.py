"""All that ``doctor``, ``mitigate`` and ``watch`` make of a host's rules, as a fuzz target: no tool runs.

A host is a JSON object: command -> what it prints, as text or as JSON.
"""

import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from typing import Any
from unittest.mock import patch
from zlib import crc32

from snat_race.cli import mitigate as cli_mitigate
from snat_race.cli.program import this_program
from snat_race.cli.result_writer import json_text
from snat_race.errors import SnatRaceError
from snat_race.kernel import netns_lookup, tools
from snat_race.report.builders.doctor import document
from snat_race.report.renderers.text import text as in_text
from snat_race.report.terminal import Terminal
from snat_race.results.findings import DoctorResult, Undo
from snat_race.rules import reader, undo
from snat_race.rules.reader import HostRules
from snat_race.rules.ruleset import Ruleset
from snat_race.runs import doctor, mitigate
from snat_race.runs.nat_properties import nat_of, rules_for
from snat_race.runs.run_metadata import RunMetadata

HERE = Path(__file__).parent
SAVE = {"rules": "iptables", "rules6": "ip6tables"}
_HALF = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # of a character, and no byte that was read
TERMINAL = Terminal(width=80)
DRAWN_ONCE_IN = 8  # a table takes as long as all the rest
HOST = netns_lookup.here()  # once, because each is an open file
RECORD = RunMetadata().fields()
PROGRAM = this_program()


def hosts() -> Iterator[str]:
    """Yield hosts: those with the rules of ``rulesets``, and others, as their tools print them."""
    yield from (HERE / "fuzz_seeds" / "rulesets.jsonl").read_text().splitlines()
    for path in sorted((HERE / "rulesets").iterdir()):
        if base := SAVE.get(path.suffix[1:]):
            counted = re.sub(r"^-A ", "[0:0] -A ", path.read_text(), flags=re.MULTILINE)
            for backend in ("nft", "legacy"):
                yield json.dumps({f"{base}-{backend}-save -c": counted})
    for path in sorted((HERE / "iptables_versions").iterdir()):
        yield json.dumps({"iptables-save -c": path.read_text()})
    for path in sorted((HERE / "nft_versions").glob("1.?.[27].txt")):  # the others print nearly the same
        listed = json.loads(path.with_suffix(".json").read_text())
        yield json.dumps({"nft -a list ruleset": path.read_text(), "nft -j list ruleset": listed})


def all_looked_into(text: str) -> None:
    """Do with a host all that ``doctor``, ``mitigate`` and ``watch`` do, short of changing it."""
    try:
        host = json.loads(text)
    except (ValueError, RecursionError):
        return
    if not isinstance(host, dict):
        return
    printed = {
        command: said if isinstance(said, str) else json.dumps(said) for command, said in host.items()
    }
    with (
        patch.object(tools, "where", _where(printed)),
        patch.object(tools, "run", _run(printed)),
        patch.object(netns_lookup, "container_device", lambda _: None),
        patch.object(reader, "_kernel_list", lambda _: None),
        patch.object(reader, "_generation", lambda _: None),
        patch.object(cli_mitigate, "this_program", lambda: PROGRAM),
        patch.object(cli_mitigate.parsing, "namespace", lambda _: HOST),
    ):
        _looked_into(reader.read(HOST))


def _where(printed: dict[str, str]) -> Any:
    present = {command.partition(" ")[0] for command in printed}
    return lambda name: f"/sbin/{name}" if name in present else None


def _run(printed: dict[str, str]) -> Any:
    def run(_: object, command: Sequence[str], *__: object, **___: object) -> tools.Finished:
        said = printed.get(" ".join(command))
        if said is None:
            return subprocess.CompletedProcess(command, 1, "", "not recorded")
        # What a tool prints is bytes, and read as ``tools.run`` reads them: line ends are all alike.
        read = said.encode("utf-8", "replace" if _HALF.search(said) else "surrogateescape")
        lines = TextIOWrapper(BytesIO(read), encoding="utf-8", errors="surrogateescape").read()
        return subprocess.CompletedProcess(command, 0, lines, "")

    return run


def _looked_into(rules: HostRules) -> None:
    with (
        patch.object(reader, "read", lambda _: rules),
        redirect_stdout(StringIO()),
        redirect_stderr(StringIO()),
        suppress(SnatRaceError),
    ):
        nat_of(rules_for([HOST], ["10.0.0.1"]), 100)
        cli_mitigate.mitigate()
        cli_mitigate.mitigate(tcp_only=True)
    findings = list(doctor._of_rules(rules, HOST))
    result = DoctorResult(**RECORD, spec={"netns": HOST.name, "workers": 1}, sysctls={}, findings=findings)
    assert DoctorResult.model_validate_json(json_text(result)) == result
    page = document(result, PROGRAM)
    if crc32(result.model_dump_json().encode()) % DRAWN_ONCE_IN == 0:
        assert in_text(page, TERMINAL, full=True)
    plans = (mitigate._planned(rules, tcp_only=tcp_only) for tcp_only in (False, True))
    for rewrite in (rewrite for plan in plans for rewrite in plan.rewrites):
        assert rewrite.diff
        assert rewrite.script
        rewrite.ruleset.settled(rewrite.edits, rewrite.ruleset)
        _put_back(rewrite.ruleset, undo.planned(rewrite))


def _put_back(ruleset: Ruleset, changes: list[Any]) -> None:
    """Have the undo file of a change written, read, and compared with the rules as they are."""
    saved = Undo(
        written_at="2026-01-01T00:00:00Z",
        environment={},
        netns=1,
        changes=changes,
        dumps={ruleset.tool: tools.printable(ruleset.text)},
    )
    again = Undo.model_validate_json(saved.model_dump_json())
    assert again == saved
    rewrite, lost = undo.back(ruleset, again.changes)
    assert len(rewrite.edits) + len(lost) <= len(changes)
