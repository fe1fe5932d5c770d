"""What ``doctor`` finds, and what ``mitigate`` changes, as JSON has it."""

from typing import Annotated, Any, Literal

from pydantic import Field

from snat_race.results.model import SCHEMA_VERSION, Model, Result

Tools = Literal[
    "iptables",
    "iptables-nft",
    "iptables-legacy",
    "ip6tables",
    "ip6tables-nft",
    "ip6tables-legacy",
    "nft",
]
OneLine = Annotated[str, Field(pattern=r"^[^\r\n]*$")]
Level = Literal["exposed", "warning", "unknown", "ok"]


class Finding(Model):
    """One thing that was looked at. ``advice``: what to do, as a command where there is one."""

    level: Level
    check: str
    evidence: str
    advice: str = ""


class DoctorResult(Result):
    """A run of ``doctor``. ``sysctls``: those that shape losses and measurements."""

    kind: Literal["doctor"] = "doctor"
    sysctls: dict[str, str]
    findings: list[Finding]

    def has(self, level: Level) -> bool:
        """Whether there is any finding of this level."""
        return any(each.level == level for each in self.findings)


class Change(Model):
    """One rule that was replaced: ``old`` as it was, ``new`` without what its counters count.

    ``nth``: which of the ``copies`` rules of its chain that read like ``new``, counted from 0.
    """

    tool: Tools
    family: OneLine
    table: OneLine
    chain: OneLine
    old: OneLine
    new: OneLine
    nth: int
    copies: int


class Undo(Model):
    """What ``mitigate --apply`` changed, or was about to, in the network namespace of inode ``netns``,
    and a dump of all rules as they were before.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    kind: Literal["undo"] = "undo"
    written_at: str
    environment: dict[str, Any]
    netns: int
    changes: list[Change] = Field(min_length=1)
    dumps: dict[str, str]
