"""How this program is started, for advice that is a command to paste."""

import shlex
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """The start of a command line of ours; by default what an installation puts on everybody's path.

    ``cli`` says how it is: ``cli.program.this_program``.
    """

    words: tuple[str, ...] = ("snat-race",)  # all before the arguments, the program with its full path
    sudo: bool = True  # whether there is a sudo, which containers lack

    def command(self, *arguments: str) -> str:
        """Return a command line, quoted for a shell."""
        return shlex.join([*self.words, *arguments])

    def try_as_root(self, *arguments: str) -> str:
        """Return what a user who is not root can do to have a command see more."""
        if self.sudo:
            return f"try 'sudo {self.command(*arguments)}'"
        return "run it as root, in a container with --cap-add NET_ADMIN"
