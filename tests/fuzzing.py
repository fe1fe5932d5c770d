"""What a fuzz target is, and how its inputs are made: from seeds, by a seeded random generator.

A target is a function of one text that may raise nothing but our own errors. Bytes that are no UTF-8 are
surrogates in the text, as they are in what a tool or a file is read to. See ``fuzz_targets.py``.
"""

import json
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from random import Random
from typing import Any

from hypothesis import strategies as st

from snat_race.errors import SnatRaceError

# What takes the place of a word, and what is put in between.
ODD = (
    *(
        "",
        " ",
        "\t",
        "\n",
        "\r",
        "\r\n",
        "\0",
        "\x1b[2J",
        "\x9b",
        "\x7f",
        "\u202e",
        "\u2066",
        "\u2028",
        "\x85",
    ),
    *("\ud800", "\udcff", "\ufeff", "é", "界", "٣", "²", "x" * 300, "9" * 5000),
    *(
        "0",
        "-1",
        "1",
        "+1",
        "1_0",
        "0x1f",
        "65535",
        "65536",
        "4294967296",
        "18446744073709551616",
        "1" * 30,
    ),
    *(
        "1e999",
        "nan",
        "inf",
        "-0.0",
        "1.5",
        "null",
        "true",
        "false",
        "{",
        "}",
        "[",
        "]",
        "{}",
        "[]",
        ":",
        ",",
    ),
    *(
        '"',
        "'",
        "\\",
        "`",
        "|",
        "<",
        ">",
        "#",
        "=",
        "@",
        "+",
        "-",
        "/",
        "..",
        "%s",
        "{0}",
        "--",
        "-A",
        "!",
        "*",
    ),
)
ODD_VALUES = (
    *(None, True, False, 0, 1, -1, 1 << 31, 1 << 64, 10**400, 1.5, float("nan"), float("inf")),
    *(
        "",
        "0",
        "-1",
        "x",
        "\ud800",
        "\x1b[2J",
        "a\nb",
        "9" * 5000,
        [],
        {},
        [[]],
        [None],
        {"": None},
        [{}] * 3,
    ),
)
_TOKEN = re.compile(r"\w+|[^\w\s]|\s+")
_LONGEST = 1 << 16


@dataclass(frozen=True)
class Target:
    """A parser, called as the program calls it."""

    name: str
    run: Callable[[str], object]
    seeds: tuple[str, ...]  # right inputs, or nearly so
    documents: tuple[Any, ...] = field(default=())  # those of the seeds that are JSON

    def fault_of(self, text: str) -> Exception | None:
        """Run the parser; return what it raised, unless that is an error of ours."""
        try:
            self.run(text)
        except SnatRaceError:
            return None
        except Exception as fault:  # noqa: BLE001 - it is what is looked for
            return fault
        return None

    def mutated(self, random: Random) -> str:
        """Return a seed with one to six changes."""
        times = random.choice((1, 1, 1, 2, 3, 6))
        if self.documents and random.random() < 0.7:
            return _mutated_json(random.choice(self.documents), random, times)
        text = random.choice(self.seeds)
        for _ in range(times):
            text = random.choice(_CHANGES)(text, random, self.seeds)
        return text[:_LONGEST]

    @property
    def inputs(self) -> st.SearchStrategy[str]:
        """The inputs as hypothesis makes them: any text, and changed seeds."""
        seeded = st.integers(0, 1 << 32).map(lambda seed: self.mutated(Random(seed)))  # noqa: S311
        return st.one_of(st.text(st.characters(), max_size=200), seeded, seeded, seeded)

    def shrunk(self, text: str) -> str:
        """Return a shorter text with a fault of the same kind."""
        kind = type(self.fault_of(text))
        size = len(text) // 2
        while size:
            at = 0
            while at < len(text):
                shorter = text[:at] + text[at + size :]
                if type(self.fault_of(shorter)) is kind:
                    text = shorter
                else:
                    at += size
            size //= 2
        return text


@dataclass(frozen=True)
class HostTarget(Target):
    """Its inputs are hosts: JSON objects of what each command prints, as text or as JSON."""

    @cached_property
    def _weights(self) -> list[float]:
        return [1 / len(seed) for seed in self.seeds]

    def mutated(self, random: Random) -> str:
        """Return a host with one to six changes, each to what one command prints.

        Small hosts come more often: they are quick, and as good to find faults with.
        """
        host = dict(random.choices(self.documents, self._weights)[0])
        for _ in range(random.choice((1, 1, 1, 2, 3, 6))):
            command = random.choice(list(host))
            said = host[command]
            if isinstance(said, str):
                others = [other[command] for other in self.documents if isinstance(other.get(command), str)]
                others = others or [said]
                host[command] = random.choice(_CHANGES)(said, random, others)
            elif random.random() < 0.95:
                host[command] = _changed(said, random)
            else:
                host[command] = random.choice(_CHANGES)(json.dumps(said), random, self.seeds)
        return json.dumps(host)


TARGETS: dict[str, Target] = {}


def target(
    *seeds: str, kind: type[Target] = Target
) -> Callable[[Callable[[str], object]], Callable[[str], object]]:
    """Register a function as the fuzz target of its name, without ``fuzz_``."""

    def registered(run: Callable[[str], object]) -> Callable[[str], object]:
        name = run.__name__.removeprefix("fuzz_")
        documents = []
        for seed in seeds:
            with suppress(ValueError):
                documents.append(json.loads(seed))
        nested = tuple(document for document in documents if isinstance(document, dict | list))
        TARGETS[name] = kind(name, run, seeds or ("",), nested)
        return run

    return registered


def _spliced(text: str, random: Random, seeds: Iterable[str]) -> str:
    other = random.choice(tuple(seeds))
    start = random.randrange(len(other) + 1)
    return text[: random.randrange(len(text) + 1)] + other[start : start + random.randrange(1, 80)]


def _cut(text: str, random: Random, _: Iterable[str]) -> str:
    start = random.randrange(len(text) + 1)
    return text[:start] + text[start + random.choice((1, 1, 4, 20, 200)) :]


def _inserted(text: str, random: Random, _: Iterable[str]) -> str:
    at = random.randrange(len(text) + 1)
    character = chr(random.randrange(256)) if random.random() < 0.3 else random.choice(ODD)
    return text[:at] + character + text[at:]


def _other_word(text: str, random: Random, _: Iterable[str]) -> str:
    start = random.randrange(len(text) + 1)
    word = _TOKEN.search(text, start)
    return text[: word.start()] + random.choice(ODD) + text[word.end() :] if word else text


def _moved_line(text: str, random: Random, _: Iterable[str]) -> str:
    lines = text.split("\n")
    line = lines[random.randrange(len(lines))]
    if random.random() < 0.5:
        lines.remove(line)
    if random.random() < 0.7:
        lines.insert(random.randrange(len(lines) + 1), line)
    return "\n".join(lines)


def _moved_column(text: str, random: Random, _: Iterable[str]) -> str:
    """Take a word of one line away, or say it twice."""
    lines = text.split("\n")
    number = random.randrange(len(lines))
    words = lines[number].split(" ")
    at = random.randrange(len(words))
    words[at : at + 1] = [words[at]] * random.choice((0, 2))
    lines[number] = " ".join(words)
    return "\n".join(lines)


_CHANGES = (_spliced, _cut, _inserted, _other_word, _other_word, _moved_line, _moved_column)


def _mutated_json(document: Any, random: Random, times: int) -> str:
    changed: Any = document
    for _ in range(times):
        changed = _changed(changed, random)
    return json.dumps(changed)


def _changed(node: Any, random: Random) -> Any:
    """Return a copy of a JSON value with one change somewhere below; what is not changed is shared."""
    if not isinstance(node, dict | list) or not node or random.random() < 0.05:
        return _odd_value(node, random)
    if isinstance(node, list):
        at = random.randrange(len(node))
        here = random.choices(([], [node[at]] * 2, [_changed(node[at], random)]), (1, 1, 12))[0]
        return [*node[:at], *here, *node[at + 1 :]]
    key = random.choice(list(node))
    chance = random.random()
    if chance < 0.07:
        return {name: value for name, value in node.items() if name != key}
    if chance < 0.14:
        return node | {random.choice(("", "x", *node)): node[key]}
    return node | {key: _changed(node[key], random)}


def _odd_value(value: Any, random: Random) -> Any:
    chance = random.random()
    if chance < 0.1:
        return [value]
    if chance < 0.2:
        return {"x": value}
    if chance < 0.35 and isinstance(value, int | float):
        return str(value)
    if chance < 0.45 and isinstance(value, str):
        return value + random.choice(ODD)
    return random.choice(ODD_VALUES)
