"""Counters of public reports, and events as each kernel counts them: only the race is called the race.

What an event counts is read from net/netfilter/nf_conntrack_core.c of that version.
"""

from dataclasses import dataclass, field

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from snat_race.analysis.candidate_causes import exhausted_at_most, of_node
from snat_race.analysis.diagnosis import diagnose
from snat_race.analysis.merge import merged
from snat_race.analysis.stream import WatchSoFar
from snat_race.kernel import counters
from snat_race.report.wording.causes import advice, evidence, in_short
from snat_race.results.conclusions import CandidateCause, Cause
from snat_race.results.counters import CONNTRACK_COUNTERS, ConntrackDelta, KernelCounters
from snat_race.results.nat import Nat
from snat_race.results.schema import Started, WatchResult
from tests.results import lost, small_client, small_watch

# Columns of /proc/net/stat/nf_conntrack, ct_cpu_seq_show() in nf_conntrack_standalone.c.
TO_2_6_33 = (
    "entries searched found new invalid ignore delete delete_list insert insert_failed drop early_drop "
    "icmp_error expect_new expect_create expect_delete"
)
TO_5_8 = f"{TO_2_6_33} search_restart"
TO_5_14 = TO_5_8.replace("searched", "clashres")
SINCE_5_15 = TO_5_14.replace("delete_list", "chainlength")


@dataclass(frozen=True, kw_only=True)
class Report:
    """What somebody saw, and what it means."""

    kernel: str
    columns: str
    rises: dict[str, int]
    node: dict[str, int]
    """What a watch has to say: causes, and at most how many packets of each."""
    client: dict[str, int]
    """What a client has to say whose losses are as many as those."""
    says: str = ""
    """What the evidence or the advice has to mention."""
    says_not: str = ""
    entries: int = 12
    most_entries: int = 262_144
    facts: dict[str, bool] = field(default_factory=dict)
    """What the rules tell of the NAT."""

    @property
    def nat(self) -> Nat:
        return Nat(**self.facts).on(self.kernel)

    @property
    def counted(self) -> KernelCounters:
        """The counters, as /proc has them: two rows, the first of zeros."""
        row = [f"{self.rises.get(column, 0):08x}" for column in self.columns.split()]
        none = ["00000000"] * len(row)
        reading = counters.parse_stat("\n".join([self.columns, " ".join(none), " ".join(row)]) + "\n")
        delta = ConntrackDelta(**reading, count=self.entries, max=self.most_entries)
        exhausted = exhausted_at_most(delta, self.nat)
        return KernelCounters(source=delta, exhausted=exhausted, destination={}, containers={})


DNS = {"udp_clashes": True}  # rules send UDP port 53 to several hosts, on a kernel before 5.6

REPORTS = {
    # Rows of the reports.
    "4.4, insert_failed alone": Report(
        # drop is not raised there; a UDP clash counts the same, and found is of look-ups.
        kernel="4.4.0-210-generic",
        columns=TO_5_8,
        rises={"insert_failed": 199, "found": 28_000_000},
        node={"inconclusive": 199},
        client={"inconclusive": 199},
        says="before 4.7 a clash does not raise drop",
        says_not="add --random-fully",
    ),
    "4.14, drop and invalid": Report(
        # The table is empty, so nothing can have found it full.
        kernel="4.14.336",
        columns=TO_5_8,
        rises={"drop": 27, "invalid": 126},
        node={"conntrack_entry_dying": 27},
        client={"conntrack_entry_dying": 27},
        says="being removed",
        says_not="table_full",
    ),
    "5.15, nearly full": Report(
        # As many entries as two NATs have ports: the race, or none was free.
        kernel="5.15.0",
        columns=SINCE_5_15,
        rises={"insert_failed": 5, "drop": 5, "found": 90_000},
        entries=131_000,
        most_entries=131_072,
        node={"inconclusive": 5},
        client={"inconclusive": 5},
        says="nat_ports_exhausted",
    ),
    "5.15, chains": Report(
        kernel="5.15.0",
        columns=SINCE_5_15,
        rises={"insert_failed": 36_706, "chainlength": 36_706},
        node={"conntrack_chain_too_long": 36_706},
        client={"conntrack_chain_too_long": 36_706},
        says="nf_conntrack_buckets",
    ),
    "5.4, the race": Report(
        # A search in vain raises found by 248 there.
        kernel="5.4.0",
        columns=TO_5_8,
        rises={"insert_failed": 214, "drop": 214},
        node={"snat_race": 214},
        client={"snat_race": 214},
        says="--random-fully",
    ),
    "5.3, DNS behind DNAT": Report(
        # TCP loses nothing to clashes of UDP, but nobody knows which these are.
        kernel="5.3.0",
        columns=TO_5_8,
        rises={"insert_failed": 120, "drop": 120},
        facts=DNS,
        node={"inconclusive": 120},
        client={"inconclusive": 120},
        says="--random-fully does not",
        says_not="add --random-fully",
    ),
    # Others of their kinds.
    "5.3, DNS behind DNAT, all rules draw": Report(
        kernel="5.3.0",
        columns=TO_5_8,
        rises={"insert_failed": 120, "drop": 120},
        facts=DNS | {"drawn": True},
        node={"udp_clash": 120},
        client={"inconclusive": 120},
        says="--random-fully does not",
        says_not="add --random-fully",
    ),
    "5.3, DNS behind DNAT, no rule translates sources": Report(
        kernel="5.3.0",
        columns=TO_5_8,
        rises={"insert_failed": 120, "drop": 120},
        facts=DNS | {"absent": True},
        node={"udp_clash": 120},
        client={"inconclusive": 120},
        says="DNS",
    ),
    "5.6, DNS behind DNAT": Report(
        # Both queries pass, so what clashes are SYNs; who reads the rules says so.
        kernel="5.6.0",
        columns=TO_5_8,
        rises={"insert_failed": 120, "drop": 120},
        node={"snat_race": 120},
        client={"snat_race": 120},
    ),
    "2.6.32, no search_restart": Report(
        kernel="2.6.32-754.el6.x86_64",
        columns=TO_2_6_33,
        rises={"insert_failed": 7, "found": 1_000_000},
        node={"inconclusive": 7},
        client={"inconclusive": 7},
        says="before 4.7",
    ),
    "3.10 of RHEL 7, full": Report(
        # drop is the table's alone, beside the clashes.
        kernel="3.10.0-1160.el7.x86_64",
        columns=TO_5_8,
        rises={"insert_failed": 40, "drop": 60, "found": 5_000_000, "early_drop": 9},
        entries=65_536,
        most_entries=65_536,
        node={"conntrack_table_full": 60, "inconclusive": 40},
        client={"conntrack_table_full": 60, "inconclusive": 40},
        says="nf_conntrack_max",
    ),
    "3.10 of a vendor that has backported": Report(
        # drop rises with insert_failed there: it is no event of its own.
        kernel="3.10.0-1160.el7.x86_64",
        columns=TO_5_8,
        rises={"insert_failed": 40, "drop": 40},
        node={"inconclusive": 40},
        client={"inconclusive": 40},
    ),
    "4.4, dying entries beside clashes": Report(
        kernel="4.4.302",
        columns=TO_5_8,
        rises={"insert_failed": 10, "drop": 5, "invalid": 5, "found": 100_000},
        node={"inconclusive": 10, "conntrack_entry_dying": 5},
        client={"inconclusive": 10, "conntrack_entry_dying": 5},
    ),
    "4.19, UDP clashes resolved": Report(
        # Up to 5.9 a clash that lost nothing raised insert_failed, and nothing else.
        kernel="4.19.0-27-amd64",
        columns=TO_5_8,
        rises={"insert_failed": 500},
        node={},
        client={},
    ),
    "4.19, UDP clashes resolved, and dying entries": Report(
        # None of the insertions that failed need have dropped anything.
        kernel="4.19.0-27-amd64",
        columns=TO_5_8,
        rises={"insert_failed": 500, "drop": 27, "invalid": 126},
        node={"inconclusive": 27},
        client={"inconclusive": 27},
        says="conntrack_entry_dying",
    ),
    "5.10, UDP clashes resolved": Report(
        kernel="5.10.223",
        columns=TO_5_14,
        rises={"clashres": 900},
        node={},
        client={},
    ),
    "6.1, full": Report(
        kernel="6.1.176",
        columns=SINCE_5_15,
        rises={"drop": 33, "invalid": 400},
        entries=65_530,
        most_entries=65_536,
        node={"conntrack_table_full": 33},
        client={"conntrack_table_full": 33},
        says="nf_conntrack_max",
    ),
    "6.1, full for a moment": Report(
        # An eviction proves it, although the table has emptied since.
        kernel="6.1.176",
        columns=SINCE_5_15,
        rises={"drop": 33, "early_drop": 2_000},
        node={"conntrack_table_full": 33},
        client={"conntrack_table_full": 33},
    ),
    "6.1, evictions alone": Report(
        # Each made room for somebody.
        kernel="6.1.176",
        columns=SINCE_5_15,
        rises={"early_drop": 2_000},
        entries=65_536,
        most_entries=65_536,
        node={},
        client={},
    ),
    "6.1, drop that nothing explains": Report(
        kernel="6.1.176",
        columns=SINCE_5_15,
        rises={"drop": 33, "invalid": 3},
        node={"conntrack_entry_dying": 3, "inconclusive": 30},
        client={"conntrack_entry_dying": 3, "inconclusive": 30},
        says="table full",
    ),
    "6.1, a table without a limit": Report(
        # nf_conntrack_max is 0.
        kernel="6.1.176",
        columns=SINCE_5_15,
        rises={"drop": 33, "invalid": 33},
        entries=900_000,
        most_entries=0,
        node={"conntrack_entry_dying": 33},
        client={"conntrack_entry_dying": 33},
    ),
    "6.6, the race and dying entries": Report(
        kernel="6.6.30",
        columns=SINCE_5_15,
        rises={"insert_failed": 80, "drop": 100, "invalid": 20},
        node={"snat_race": 80, "conntrack_entry_dying": 20},
        client={"snat_race": 80, "conntrack_entry_dying": 20},
    ),
    "6.6, the race among chains": Report(
        kernel="6.6.30",
        columns=SINCE_5_15,
        rises={"insert_failed": 90, "drop": 10, "chainlength": 80},
        node={"snat_race": 10, "conntrack_chain_too_long": 80},
        client={"snat_race": 10, "conntrack_chain_too_long": 80},
    ),
    "6.12, ICMP errors, strays and restarts": Report(
        # Nothing of that loses a SYN.
        kernel="6.12.117+deb13-cloud-amd64",
        columns=SINCE_5_15,
        rises={"invalid": 5_000, "icmp_error": 700, "search_restart": 4_000, "found": 90_000},
        node={},
        client={},
    ),
}


def counted_by(causes: list[Cause]) -> dict[str, int]:
    return {cause.cause: cause.losses for cause in causes}


@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS.keys())
def test_counters_of_a_kernel_mean_what_it_counts(report: Report) -> None:
    found = of_node(report.counted, report.nat)
    assert {cause.cause: cause.at_most for cause in found} == report.node
    losses = sum(report.client.values())
    causes = diagnose(lost(100_000, {"TIMEOUT": losses} if losses else {}), report.counted, nat=report.nat)
    assert counted_by(causes) == report.client
    for said_of in (found, causes):
        page = "\n".join(f"{named(cause)}\n{evidence(cause)}\n{advice(cause)}" for cause in said_of)
        assert report.says in page
        assert not (report.says_not and report.says_not in page)


def named(cause: Cause | CandidateCause) -> str:
    return in_short(cause) if isinstance(cause, Cause) else cause.cause


# The version of a kernel: since when a clash raises drop, since when a UDP clash of one flow is resolved
# and raises insert_failed all the same, since when it does not, since when a chain may be too long.
KERNELS = (
    "3.10.0",
    "4.4.302",
    "4.14.336",
    "4.19.316",
    "5.4.280",
    "5.10.223",
    "5.15.160",
    "6.1.176",
    "7.2.13",
)


@dataclass(frozen=True, kw_only=True)
class Events:
    """What happened at a NAT."""

    races: int
    dying: int
    full: int
    chains: int
    resolved: int
    strays: int


COUNT = st.integers(0, 300)
EVENTS = st.builds(
    Events, races=COUNT, dying=COUNT, full=COUNT, chains=COUNT, resolved=COUNT, strays=st.integers(0, 5_000)
)


@given(st.sampled_from(KERNELS), EVENTS, st.integers(0, 5))
def test_what_is_no_race_is_not_called_one(kernel: str, events: Events, elsewhere: int) -> None:
    """A client has lost what a kernel counted, and some more where nobody looks."""
    version = tuple(map(int, kernel.split(".")))
    drops_counted, counts_apart = version >= (4, 7), version >= (5, 10)
    races, dying, full = events.races, events.dying, events.full
    chains = events.chains if version >= (5, 15) else 0
    resolved = events.resolved if drops_counted else 0
    insert_failed = races + chains + (0 if counts_apart else resolved)
    rises = {
        "insert_failed": insert_failed,
        "drop": dying + full + (races if drops_counted else 0),
        "invalid": dying + events.strays,
        "chain_toolong": chains,
        "clash_resolve": resolved if counts_apart else 0,
    }
    if resolved and not counts_apart:  # as many of the one as of the other look like clashes
        assume(dying + full <= 3 * max(0, resolved - dying - full))
    per_cpu = {name: [rises.get(name, 0)] for name in CONNTRACK_COUNTERS}
    delta = ConntrackDelta(**per_cpu, count=1000 if full else 12, max=1000)
    losses = races + dying + full + chains + elsewhere
    read = KernelCounters(source=delta, destination={}, containers={})
    nat = Nat().on(kernel)
    causes = counted_by(diagnose(lost(100_000, {"TIMEOUT": losses} if losses else {}), read, nat=nat))
    assert sum(causes.values()) == losses
    assert causes.get("snat_race", 0) <= races
    assert causes.get("conntrack_chain_too_long", 0) <= chains
    assert causes.get("udp_clash", 0) == 0
    if not full:
        assert "conntrack_table_full" not in causes
    if drops_counted and not resolved and not elsewhere and 4 * losses < 100_000:
        assert causes.get("snat_race", 0) == races


def changed_watch(name: str, environment: dict[str, str]) -> WatchResult:
    fields = small_watch(name, insert_failed=4).model_dump() | {"environment": environment}
    return WatchResult.model_validate(fields)


@pytest.mark.parametrize(
    ("releases", "cause", "says"),
    [
        (("6.1.176", "6.1.176"), "snat_race", "--random-fully"),
        (("4.4.302", "4.4.302"), "inconclusive", "before 4.7"),
        (("6.1.176", "3.10.0-1160.el7.x86_64"), "inconclusive", "before 4.7"),
    ],
    ids=str,
)
def test_results_of_older_versions_are_merged_by_the_kernel_that_they_name(
    releases: tuple[str, str], cause: str, says: str
) -> None:
    """They did not record how a kernel counts. One old kernel of several makes all counters as vague."""
    client = small_client("a", failed=8)
    watches = [
        changed_watch(f"w{number}", {"boot_id": str(number), "kernel": release})
        for number, release in enumerate(releases)
    ]
    (found,) = merged([client], watches).diagnosis
    assert (found.cause, found.losses) == (cause, 8)
    assert says in f"{evidence(found)} {advice(found)}"


def test_a_stream_that_was_cut_off_on_an_old_kernel() -> None:
    watch = small_watch("w", 7)
    head = {name: getattr(watch, name) for name in ("run_id", "tool", "started_at", "elapsed_s", "spec")}
    started = Started(**head, kind="watch", environment={"kernel": "4.4.302"}, nat=Nat())
    so_far = WatchSoFar(started)
    so_far.add(watch.periods[0].model_dump(mode="json"))
    result = so_far.result()
    assert result
    assert [(cause.cause, cause.at_most) for cause in result.candidate_causes] == [("inconclusive", 7)]
