"""The commands that README.md and docs/ show: where they stand, how to run them, what they print.

A block of commands opens with ``console`` and one of three kinds; each command stands after ``$``:

* ``console same``: every run prints the same. ``make examples`` runs it and writes the output down.
* ``console alike``: a run prints the same but for its numbers; a test runs it. ``...`` stands for what was
  left out.
* ``console``: it needs too much, an engine or a cluster. Only the command line is checked.
"""

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from snat_race.report.terminal import PIPED_WIDTH

ROOT = Path(__file__).resolve().parent.parent
PROMPT = "$ "
LEFT_OUT = "..."
_FENCE = re.compile(r"^```(.*)$")
_LONGEST_RUN_S = 60

# Where the program is, for the documentation's reader: advice that can be pasted has its full path.
# It is run from a folder whose path is as long, wherever this checkout is: so lines break where his do.
_INSTALLED_IN = "/home/you/.local/bin"
_PARENT, _PREFIX = Path("/", "tmp"), "docs---"  # mkdtemp(3) adds eight letters

# What differs from run to run: a kernel's name, lists of CPUs, numbers with their units, and bars.
_MASKS = (
    (re.compile(r"kernel \S+"), "kernel #"),
    (re.compile(r"/\S*/snat-race"), "snat-race"),
    (re.compile(r"[▏▎▍▌▋▊▉█▁▂▃▄▅▆▇]+"), ""),
    (re.compile(r"[+-]?\d+(?:[,.+]\d+)*(?:[eE][+-]?\d+)?(?:(?:ns|us|ms|s|m|h|%)\b)?%?"), "#"),
    (re.compile(r"CPU # #(, CPU # #)*"), "CPU # #"),
    (re.compile(r"[-─]{3,}"), ""),
    (re.compile(r"\s+"), " "),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One command, and the output that is printed below it."""

    command: str  # without the prompt; may span lines
    output: str  # ends with a newline, unless it is empty


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """One fenced block of a page."""

    page: Path
    line: int  # of its first line of text, counted from 1
    language: str  # the first word after the fence: console, sh, json, ...
    kind: str  # the second word: same, alike, or ""
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def steps(self) -> list[Step]:
        """The commands of a console block with their outputs, in order.

        Raises:
            ValueError: a line of output stands before the first command.

        """
        steps: list[Step] = []
        continued = False
        for line in self.text.splitlines():
            if line.startswith(PROMPT):
                steps.append(Step(command=line.removeprefix(PROMPT), output=""))
            elif not steps:
                raise ValueError(f"{self}: a console block begins with a command after '{PROMPT}'")
            elif continued:
                steps[-1] = Step(command=f"{steps[-1].command}\n{line}", output="")
            else:
                steps[-1] = Step(command=steps[-1].command, output=f"{steps[-1].output}{line}\n")
            continued = line.endswith("\\") and (continued or line.startswith(PROMPT))
        return steps


def pages() -> list[Path]:
    """Return every page of documentation that shows commands."""
    folders = (ROOT / "docs", ROOT / "docker")
    found = [path for folder in folders for path in sorted(folder.rglob("*.md"))]
    return [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")), *found]


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page.

    Raises:
        ValueError: the last one has no end.

    """
    found: list[Block] = []
    opened: tuple[int, list[str]] | None = None
    taken: list[str] = []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        fence = _FENCE.match(line)
        if fence and opened is None:
            opened, taken = (number + 1, fence[1].split()), []
        elif fence and opened is not None:
            begin, words = opened
            language, kind = [*words, "", ""][:2]
            text = "".join(f"{each}\n" for each in taken)
            found.append(Block(page=page, line=begin, language=language, kind=kind, text=text))
            opened = None
        elif opened is not None:
            taken.append(line)
    if opened is not None:
        raise ValueError(f"{page}: the block of line {opened[0] - 1} has no end")
    return found


def environment() -> dict[str, str]:
    """Return the environment that documented commands run in: our program first in PATH, no terminal."""
    kept = {name: os.environ[name] for name in ("HOME", "PATH", "USER") if name in os.environ}
    kept["PATH"] = f"{_installation().name}:{Path(sys.executable).parent}:{kept.get('PATH', '')}"
    return kept | {"COLUMNS": str(PIPED_WIDTH), "LC_ALL": "C.UTF-8", "TZ": "UTC", "PYTHONPATH": str(ROOT)}


def run(command: str) -> str:
    """Run a command as a reader would, at the repository's root; return what it prints, errors too."""
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=_LONGEST_RUN_S,
        check=False,
    )
    return portable(done.stdout)


def portable(printed: str) -> str:
    """Return what was printed with the place of our program as it is on the reader's machine."""
    return printed.replace(_installation().name, _INSTALLED_IN)


@cache
def _installation() -> TemporaryDirectory[str]:
    """Return a folder that leads to our program, as pipx makes one; it is removed at the end."""
    folder = TemporaryDirectory(prefix=_PREFIX, dir=_PARENT)
    Path(folder.name, "snat-race").symlink_to(Path(sys.executable).with_name("snat-race"))
    return folder


def written_down(page: Path, answer: Callable[[str], str]) -> str:
    """Return a page with the output of every ``console same`` block as ``answer`` gives it."""
    lines = page.read_text(encoding="utf-8").splitlines()
    for block in reversed(blocks(page)):
        if (block.language, block.kind) == ("console", "same"):
            shown = "".join(f"{PROMPT}{step.command}\n{answer(step.command)}" for step in block.steps)
            first = block.line - 1
            lines[first : first + block.text.count("\n")] = shown.splitlines()
    return "".join(f"{line}\n" for line in lines)


def masked(text: str) -> str:
    """Return a text on one line and without what differs from run to run."""
    for pattern, mask in _MASKS:
        text = pattern.sub(mask, text)
    return text.strip()


def missing(documented: str, printed: str) -> list[str]:
    """Return the words of a documented output that a run did not print as often; numbers do not count.

    Their order does not count either: where a table is narrower, cells and lines break elsewhere.
    """
    wanted = Counter(masked(documented).split()) - Counter({LEFT_OUT: documented.count(LEFT_OUT)})
    lacking = wanted - Counter(masked(printed).split())
    return [word for word in lacking if "#" not in word]


def main() -> None:
    """Run the commands of every ``console same`` block, and write their outputs down."""
    for page in pages():
        text = written_down(page, run)
        if text != page.read_text(encoding="utf-8"):
            page.write_text(text, encoding="utf-8")
            print(f"{page.relative_to(ROOT)}: written")


if __name__ == "__main__":
    main()
