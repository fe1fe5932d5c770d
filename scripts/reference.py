"""``make reference``: write docs/reference.md, the manual page and the completions of each shell, and
docs/owners.md.

All of them come from the command line itself, the last from what the program knows of others. Packages
bring what is in share/.
"""

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from scripts.command_line import EXIT_CODES, Entry, Option, entries
from scripts.man_page import man_page
from snat_race.report.wording.owners import words_of
from snat_race.results.findings import RuleOwner
from snat_race.rules.owner_marks import IPTABLES_NAT, MARKS, Mark

ROOT = Path(__file__).resolve().parent.parent
# Where each shell looks for the completion of a program, below the prefix of an installation.
COMPLETIONS = {
    "bash": "share/bash-completion/completions/snat-race",
    "zsh": "share/zsh/site-functions/_snat-race",
    "fish": "share/fish/vendor_completions.d/snat-race.fish",
}
# zsh loads the file as a function, at the first word to complete, and that word is to be completed too.
_ZSH_FIRST_WORD = """\
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
  _snat_race_completion "$@"
fi
"""

INTRODUCTION = """\
# Reference

<!-- 'make reference' writes this page. Change the help texts in snat_race/cli/ instead. -->

Every command also takes `-h` or `--help`. If an option names a variable, its value comes from there unless
the option is given. As in the Go tool, `c` means `client`, `s` means `server`, `--go-routines` means
`--workers`, and an option may have one dash or two. An installed package has this page as `man snat-race`.

## Exit codes

| code | meaning |
|---|---|
{codes}

`make` reports every failure as 2. Call `snat-race` itself where the code matters.

## Commands"""

OWNERS = """\
# Programs that write SNAT rules

<!-- 'make reference' writes this page. Change snat_race/rules/owner_marks.py or
snat_race/report/wording/owners.py instead. -->

`doctor` and `mitigate` say which program wrote a rule, because that program writes it again. A rule is a
program's if it stands in a chain that the program makes or uses, and reads as the program writes it
there: its matches, what it translates to, and its comment. A chain or a comment that is only named like a
program's does not count, nor does a rule that somebody else has put into its chain. What anybody
writes by hand is a program's only near its other marks: a chain of its own, or another of its rules. All
other rules are by "{unknown}".

These are the programs that are known. Chains are patterns; those without a table are in table nat of
iptables or ip6tables. The last column says in which source or documentation the rule and the setting were
read. What old versions wrote may be known from the rulesets of hosts only: the comments of
`snat_race/rules/owner_marks.py` say so.

{table}

Some rules are not recognised, because nothing in them says whose they are. **ufw** has no chain of its
own in table nat: what translates there is what you wrote into `before.rules`. **strongSwan** adds no SNAT
rule of its own. Of **Shorewall**'s rules, those that its optimiser moves into chain POSTROUTING look like
anybody's. So do Docker's rules for a bridge that you named yourself, with iptables.
"""


def written() -> dict[str, str]:
    """Return what ``make reference`` writes, by its path in the repository."""
    commands = entries()
    return {
        "docs/reference.md": reference(commands),
        "docs/owners.md": owners(),
        "share/man/man1/snat-race.1": man_page(commands),
        **{path: completion(shell) for shell, path in COMPLETIONS.items()},
    }


def reference(commands: Iterable[Entry]) -> str:
    """Return the whole page, as Markdown."""
    codes = "\n".join(f"| {code} | {meaning} |" for code, meaning in EXIT_CODES)
    return "\n\n".join([INTRODUCTION.format(codes=codes), *map(_section, commands)]) + "\n"


def owners() -> str:
    """Return the page about programs that write SNAT rules, as Markdown."""
    rows = [("program", "its chains", "writes its rule again", "for random ports", "read in")]
    for owner in sorted(MARKS, key=lambda owner: str(owner).lower()):
        words = words_of(owner)
        chains = ", ".join(dict.fromkeys(map(_chain, MARKS[owner])))
        rows.append((str(owner), chains, words.again, words.setting, words.source or "not verified"))
    head, *body = ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]
    table = "\n".join([head, "|---" * len(rows[0]) + "|", *body])
    return OWNERS.format(unknown=RuleOwner.unknown, table=table)


def _chain(mark: Mark) -> str:
    """Return where the rules of a mark are."""
    return f"`{mark.chain}`" if mark.table == IPTABLES_NAT else f"`{mark.table}`: `{mark.chain}`"


def completion(shell: str) -> str:
    """Return the file that has a shell ask the program how a line could go on."""
    printed = subprocess.run(
        [sys.executable, "-m", "snat_race"],
        env=os.environ | {"_SNAT_RACE_COMPLETE": f"source_{shell}"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return printed.strip() + "\n" + (_ZSH_FIRST_WORD if shell == "zsh" else "")


def _section(entry: Entry) -> str:
    head = f"### {entry.path}\n\n{entry.about}\n\n`{entry.usage}`"
    examples = f"\n\n```sh\n{entry.examples}\n```" if entry.examples else ""
    return f"{head}\n\n{_table(entry.options)}{examples}"


def _table(options: Iterable[Option]) -> str:
    """Return a row for each parameter; a column that all leave empty is left out."""
    rows = [("option", "default", "variable", "meaning")]
    rows += [
        (
            _code(option.spelt),
            option.default if option.default == "required" else _code(option.default),
            " or ".join(map(_code, option.variables)),
            _cell(option.meaning),
        )
        for option in options
    ]
    columns = [column for column in zip(*rows, strict=True) if any(column[1:])]
    head, *body = ["| " + " | ".join(row) + " |" for row in zip(*columns, strict=True)]
    return "\n".join([head, "|---" * len(columns) + "|", *body])


def _code(text: str) -> str:
    return f"`{_cell(text)}`" if text else ""


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("<", "&lt;")


def main(root: Path) -> None:
    """Write all of it below a folder."""
    for name, text in written().items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else ROOT)
