"""All parsers of the package, each with a few right inputs: ``fuzz_<name>`` takes a text that somebody
else has written, and does with it what the program does.

A target may raise errors of ``snat_race.errors`` with a message of one line, and nothing else.
``test_fuzz.py`` runs them for seconds, ``scripts/fuzz.py`` for as long as one likes.
"""

from pathlib import Path

from snat_race.kernel import counters
from snat_race.rules.exposure import HostTraits, judged
from snat_race.rules.nft_list import NftList
from snat_race.rules.owners import owner_of
from tests.fuzzing import target


def seed(name: str) -> str:
    """Return a file of right input."""
    return (Path(__file__).parent / "fuzz_seeds" / name).read_text()


# ---- the kernel's counters and settings


@target(
    "entries  searched found new invalid ignore delete delete_list insert insert_failed drop early_drop "
    "icmp_error  expect_new expect_create expect_delete search_restart\n"
    "0000005a  00000000 00000003 00000000 00000000 00000007 00000000 00000000 00000000 0000000c 0000000c "
    "00000000 00000000  00000000 00000000 00000000 00000001\n",
    "entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop "
    "icmp_error  expect_new expect_create expect_delete search_restart\n"
    "0 0 3 0 0 7 0 0 0 c c 0 0 0 0 0 1\n0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 ffffffff\n",
)
def fuzz_proc_conntrack(text: str) -> None:
    counters.parse_stat(text)


# ---- rules

NFT_TEXT, NFT_JSON = seed("nft.txt"), seed("nft.json")


def looked_into(nft: NftList) -> None:
    """Do with a ruleset of nft what ``doctor`` and ``mitigate`` do."""
    for rule in judged(nft.snat_rules, HostTraits()):
        owner_of(rule)
        NftList.cured(rule.text)
    for read in (nft.broken, nft.not_understood, nft.written_by_iptables):
        assert isinstance(read, list | set)


@target(NFT_JSON)
def fuzz_nft_json(text: str) -> None:
    looked_into(NftList("nft", NFT_TEXT, text))


@target(NFT_TEXT)
def fuzz_nft_text(text: str) -> None:
    looked_into(NftList("nft", text, NFT_JSON))
    NftList.json_commands_without_flags("nft", text)


# ---- add targets above this line, in the section that they belong to
