"""What holds the house together: rules about the source itself, so that they need no reviewer.

Each test lists what breaks its rule, as ``file:line: what``. The rules are those of CONTRIBUTING.md.
"""

import ast
import dataclasses
import importlib
import inspect
import re
import tokenize
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import pytest
import typer.main

from snat_race.cli.app import app
from snat_race.results.model import Result
from tests.conftest import ROOT

PACKAGE = ROOT / "snat_race"
MOST_LINES, FEWEST_LINES = 400, 40

# Results may be told apart by class in one place only.
REGISTRY = "report/registry.py"

# The rooms that speak the command line: its options, and advice to paste.
SPEAKS_OPTIONS = ("cli/", "report/wording/")
# Options of other programs that are spelled like one of ours.
FOREIGN_OPTIONS = {
    ("lab/variant_rules.py", "--mode"),  # iptables -m statistic
    ("rules/reader.py", "--version"),  # iptables
}

# Words that say nothing to a stranger, or two things at once; docs/glossary.md names the words instead.
PRIVATE_WORDS = {
    *("crew", "berth", "rig", "arm", "arms", "suspect", "suspects", "rise", "rises", "rose", "risen"),
    *("doubt", "doubts", "doubtful", "place", "places", "rehearsal", "beside", "watched", "lap", "laps"),
    *("told", "untold", "heat", "standing", "standings"),
}
# Words that are no name for a value: what was found, and of what each is one, is not said.
NO_NAMES = {"each", "found"}
# Where such a word is the right one: the module, the identifier, and why.
RIGHT_WORDS = {
    ("results/counters.py", "found"): "a counter of conntrack: searches that met a port in use",
    ("results/nat.py", "found"): "that counter",
    ("analysis/candidate_causes.py", "found"): "that counter",
    ("results/schema.py", "watched"): "a field of the JSON contract: whether a NAT's counters were read",
    ("results/conclusions.py", "not_watched"): "a cause of the JSON contract",
}

# Modules that are longer or shorter than others, and why.
LONG_ON_PURPOSE = {
    "cli/parameters.py": "every option of every command, a table to look things up in",
}
SHORT_ON_PURPOSE = {
    "report/builders/checks.py": "a builder for each kind of document",
    "report/figures/pictures.py": "the one table of who draws what; those who draw do not know one another",
    "report/renderers/csv.py": "a renderer for each format",
    "report/renderers/hgrm.py": "a renderer for each format",
    "report/renderers/ktap.py": "a renderer for each format",
    "report/wording/forecasts.py": "the words of each kind of document",
    "runs/lab.py": "a run for each command",
    "runs/run_metadata.py": "what all runs say of themselves",
}


class Module(NamedTuple):
    """A file of the package."""

    name: str  # its path below the package
    text: str
    tree: ast.Module


def modules() -> list[Module]:
    return [
        Module(str(path.relative_to(PACKAGE)), text, ast.parse(text))
        for path in sorted(PACKAGE.rglob("*.py"))
        for text in [path.read_text()]
    ]


MODULES = modules()


def breaches(of: Callable[[Module, ast.AST], str | None], *, outside: tuple[str, ...] = ()) -> list[str]:
    """Return what ``of`` says of each node of the package, with its file and line."""
    return [
        f"{module.name}:{getattr(node, 'lineno', 0)}: {said}"
        for module in MODULES
        if not module.name.startswith(outside)
        for node in ast.walk(module.tree)
        if (said := of(module, node))
    ]


def none(breached: list[str]) -> None:
    """Fail with one line for each breach."""
    assert not breached, "\n" + "\n".join(breached)


def result_classes() -> set[str]:
    for path in (PACKAGE / "results").glob("*.py"):
        importlib.import_module(f"snat_race.results.{path.stem}")

    def below(kind: type[Result]) -> Iterator[str]:
        yield kind.__name__
        for subclass in kind.__subclasses__():
            yield from below(subclass)

    return set(below(Result))


def our_options() -> set[str]:
    """Return the long options of all commands but --help, which every program has."""
    command = typer.main.get_command(app)
    commands = [command, *getattr(command, "commands", {}).values()]
    names = {
        name for one in commands for option in one.params for name in (*option.opts, *option.secondary_opts)
    }
    return {name for name in names if name.startswith("--")} - {"--help"}


def test_the_top_of_the_package_has_no_loose_modules() -> None:
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py", "errors.py"}


def test_only_the_registry_asks_for_a_results_class() -> None:
    classes = result_classes()
    assert {"ClientResult", "LabResult"} <= classes

    def asked(_: Module, node: ast.AST) -> str | None:
        if isinstance(node, ast.MatchClass):
            kinds: ast.AST = node.cls
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
            kinds = node.args[1]
        else:
            return None
        names = {getattr(part, "id", "") or getattr(part, "attr", "") for part in ast.walk(kinds)}
        named = names & classes
        return f"asks for {', '.join(sorted(named))}" if named else None

    none(breaches(asked, outside=(REGISTRY,)))


def test_no_model_is_changed_after_it_was_built() -> None:
    def changed(_: Module, node: ast.AST) -> str | None:
        if not isinstance(node, ast.Call) or getattr(node.func, "attr", "") not in {"model_copy", "copy"}:
            return None
        return "copied and changed" if any(word.arg == "update" for word in node.keywords) else None

    none(breaches(changed))


def test_the_lower_floors_speak_no_command_line() -> None:
    options = our_options()
    assert {"--workers", "--variant"} <= options

    def spoken(module: Module, node: ast.AST) -> str | None:
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
            return None
        words = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", node.value)) & options
        words -= {option for name, option in FOREIGN_OPTIONS if name == module.name}
        return ", ".join(sorted(words)) or None

    none(breaches(spoken, outside=SPEAKS_OPTIONS))


def test_no_call_is_squeezed_past_the_formatter() -> None:
    none(
        [
            f"{module.name}:{token.start[0]}: {token.string}"
            for module in MODULES
            for token in tokenize.generate_tokens(StringIO(module.text).readline)
            if token.type == tokenize.COMMENT and re.search(r"fmt: *(skip|off)", token.string)
        ]
    )


def words_of(identifier: str) -> set[str]:
    """Split ``counter_delta``, ``CounterDelta`` or ``COUNTER_DELTA`` into its words."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", identifier)
    return set(parted.lower().split("_"))


def defined(node: ast.AST) -> str | None:
    """Return the identifier that a node defines or binds, if it does."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return name
        case (
            ast.arg(arg=name)
            | ast.Name(id=name, ctx=ast.Store())
            | ast.Attribute(attr=name, ctx=ast.Store())
        ):
            return name
        case ast.alias(asname=str(name)):
            return name
    return None


def test_names_are_words_that_a_stranger_knows() -> None:
    def private(module: Module, node: ast.AST) -> str | None:
        name = defined(node)
        if name is None or (module.name, name) in RIGHT_WORDS:
            return None
        return name if name in NO_NAMES or words_of(name) & PRIVATE_WORDS else None

    none(breaches(private))
    none(sorted(module.name for module in MODULES if words_of(Path(module.name).stem) & PRIVATE_WORDS))


def test_every_file_is_as_long_as_an_idea() -> None:
    lines = {module.name: module.text.count("\n") for module in MODULES}
    long = {name: count for name, count in lines.items() if count > MOST_LINES}
    assert long.keys() == LONG_ON_PURPOSE.keys(), long
    short = {
        name: count
        for name, count in lines.items()
        if count < FEWEST_LINES and not name.endswith(("__init__.py", "__main__.py"))
    }
    assert short.keys() == SHORT_ON_PURPOSE.keys(), short


def settings_classes() -> list[type]:
    settings: list[type] = []
    for name in ("snat_race.runs.settings", "snat_race.lab.settings"):
        module = importlib.import_module(name)
        own = (
            thing for thing in vars(module).values() if inspect.isclass(thing) and thing.__module__ == name
        )
        settings += [thing for thing in own if dataclasses.is_dataclass(thing)]
    return settings


@pytest.mark.parametrize("settings", settings_classes(), ids=lambda settings: settings.__name__)
def test_every_setting_says_what_it_means(settings: type) -> None:
    lines = inspect.getsource(settings).splitlines()
    silent = []
    for field in dataclasses.fields(settings):
        (at,) = (number for number, line in enumerate(lines) if re.match(rf"    {field.name}: ", line))
        if "#" not in lines[at] and not lines[at - 1].strip().startswith("#"):
            silent.append(field.name)
    assert silent == []
