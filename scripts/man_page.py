"""The manual page, in the macros of man(7): what groff and mandoc format without a complaint."""

import re
import textwrap
from collections.abc import Iterator, Sequence

from scripts.command_line import EXIT_CODES, Entry, Option
from snat_race import __version__

_CODE = re.compile(r"`([^`]*)`")
# Of a text, what is typed as it stands: options, and our name.
_TYPED = re.compile(r"(?<![\w-])--?[a-z][\w-]*|snat-race")
# Characters that a formatter would make typographic, so that they could not be pasted.
_AS_TYPED = str.maketrans({"-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti", "\\": r"\e"})
_LINE_WIDTH = 64  # of the source; with what shields its dashes it stays below the 80 that mandoc wants
_SEE_ALSO = (("conntrack", 8), ("ip-netns", 8), ("iptables", 8), ("iptables-extensions", 8), ("nft", 8))


def man_page(commands: Sequence[Entry]) -> str:
    """Return the page of the program and all its commands."""
    program, *subcommands = commands
    summary = program.about[0].lower() + program.about[1:].rstrip(".")
    lines = [
        r".\" 'make reference' writes this page. Change the help texts in snat_race/cli/ instead.",
        f'.TH {typed(program.path.upper())} 1 "" "{program.path} {__version__}" "User Commands"',
        ".SH NAME",
        rf"{typed(program.path)} \-",
        *_prose(summary),
        ".SH SYNOPSIS",
        *(f"{_usage(entry)}\n.br" for entry in commands[:-1]),
        _usage(commands[-1]),
        ".SH OPTIONS",
        *_prose("These stand before a command. Every command also takes `-h` or `--help`."),
        *_options(program.options),
        ".SH COMMANDS",
        *(line for entry in subcommands for line in _command(entry)),
        ".SH EXIT STATUS",
        *(
            line
            for code, meaning in EXIT_CODES
            for line in (".TP", f".B {code}", *_prose(meaning[0].upper() + meaning[1:] + "."))
        ),
        ".SH ENVIRONMENT",
        *_prose("An option that names a variable takes its value from there, unless the option is given."),
        ".SH EXAMPLES",
        *_examples(program),
        ".SH SEE ALSO",
        ",\n".join(f".BR {typed(name)} ({section})" for name, section in _SEE_ALSO),
    ]
    return "\n".join(lines) + "\n"


def _usage(entry: Entry) -> str:
    return rf"\fB{typed(entry.path)}\fR{typed(entry.usage.removeprefix(entry.path))}"


def _command(entry: Entry) -> Iterator[str]:
    yield f".SS {typed(entry.path)}"
    for number, paragraph in enumerate(entry.about.split("\n\n")):
        yield from (".PP",) if number else ()
        yield from _prose(paragraph)
    yield from _options(entry.options)
    if entry.examples:
        yield from (".PP", "Examples:", ".PP")
        yield from _examples(entry)


def _options(options: Sequence[Option]) -> Iterator[str]:
    for option in options:
        notes = [f"variable: {' or '.join(option.variables)}"] if option.variables else []
        if option.default:
            notes.insert(0, "required" if option.default == "required" else f"default: {option.default}")
        yield from (".TP", rf"\fB{typed(option.spelt)}\fR")
        yield from _prose(option.meaning + (f" [{'; '.join(notes)}]" if notes else ""))


def _examples(entry: Entry) -> Iterator[str]:
    """Yield the examples: what each does, then its command line, as it is."""
    for line in entry.examples.splitlines():
        if not line:
            yield ".PP"
        elif line.startswith("#"):
            yield from _prose(line.removeprefix("#").strip() + ":")
        else:
            yield from (".PP", ".nf", ".RS 4", typed(line), ".RE", ".fi")


def typed(text: str) -> str:
    """Return what a person may paste."""
    return text.translate(_AS_TYPED)


def _prose(text: str) -> Iterator[str]:
    """Yield a text in lines; what is typed in it can be pasted, and none is taken for a macro."""
    for line in textwrap.wrap(text, _LINE_WIDTH, break_on_hyphens=False, break_long_words=False):
        shown = line.replace("\\", r"\e")
        shown = _TYPED.sub(lambda found: typed(found[0]), shown)
        shown = _CODE.sub(r"\\fB\1\\fR", shown)
        yield rf"\&{shown}" if shown.startswith((".", "'")) else shown
