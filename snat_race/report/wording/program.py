"""How this program is started, for advice that is a command to paste."""

import re
import shlex
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

_Said = TypeVar("_Said")
# How sentences name a command of ours, which any installation may have elsewhere: 'snat-race doctor'.
_COMMAND = re.compile(r"(?<=')snat-race(?= [a-z])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """The start of a command line of ours; by default what an installation puts on everybody's path.

    ``cli`` says how it is: ``cli.program.this_program``.
    """

    words: tuple[str, ...] = ("snat-race",)  # all before the arguments, the program with its full path
    sudo: bool = True  # whether there is a sudo, which containers lack
    on_path: bool = True  # whether this user's shell finds it by its bare name
    in_container: bool = False  # whose files end with it

    def command(self, *arguments: str) -> str:
        """Return a command line, quoted for a shell."""
        return shlex.join([*self.words, *arguments])

    def mitigation(self, *arguments: str) -> str:
        """Return the command line that changes exposed rules."""
        dump = ["--dump", "FILE"] if self.in_container else []
        return self.command("mitigate", *arguments, "--apply", *dump)

    def try_as_root(self, *arguments: str) -> str:
        """Return what a user who is not root can do to have a command see more."""
        if self.sudo:
            return f"try 'sudo {self.command(*arguments)}'"
        return "run it as root, in a container with --cap-add NET_ADMIN"

    def addressed(self, said: _Said) -> _Said:
        """Return a text, or a document, whose commands of ours can be pasted here: 'snat-race doctor'."""
        changed: Any = said
        if isinstance(said, str):
            changed = _COMMAND.sub(lambda _: self.command(), said)
        elif isinstance(said, tuple):
            changed = tuple(map(self.addressed, said))
        elif is_dataclass(said) and not isinstance(said, type):
            changed = replace(
                said, **{part.name: self.addressed(getattr(said, part.name)) for part in fields(said)}
            )
        return changed  # type: ignore[no-any-return]
