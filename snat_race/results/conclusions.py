"""What a result concludes, as data: outcomes, causes and warnings. ``report.wording`` has the sentences."""

from enum import StrEnum

from snat_race.results.model import Amount, Count, Model, Values


class Outcome(StrEnum):
    """What a run proves about the race."""

    reproduced = "reproduced"  # SYNs were lost to it
    not_seen = "not_seen"  # enough dials met, and none was
    inconclusive = "inconclusive"  # nothing either way


class VerdictReason(StrEnum):
    """Why the outcome is what it is; one or more for each outcome."""

    # reproduced
    lost_to_race = "lost_to_race"  # more losses than chance makes
    # not_seen
    none_lost = "none_lost"  # no loss to the race
    by_chance = "by_chance"  # as few losses as a NAT that draws ports makes by chance
    # inconclusive
    nothing_translated = "nothing_translated"  # the rule matched no connection
    other_causes = "other_causes"  # (nearly) all losses are certainly not the race's
    mixed_causes = "mixed_causes"  # too many losses are, or may be, of other causes
    dials_do_not_meet = "dials_do_not_meet"  # the scenario pairs no dials
    one_cpu = "one_cpu"  # the race needs two
    too_few_pairs = "too_few_pairs"  # too few dials met
    too_few_ports = "too_few_ports"  # the NAT draws from so few that chance hides the race


class CauseName(StrEnum):
    """Why dials were lost."""

    # At the NAT.
    snat_race = "snat_race"  # two SYNs were given the same port at once
    nat_ports_exhausted = "nat_ports_exhausted"  # no port was free for this destination
    conntrack_chain_too_long = "conntrack_chain_too_long"  # a hash bucket held too many entries
    conntrack_table_full = "conntrack_table_full"
    conntrack_entry_dying = "conntrack_entry_dying"  # a SYN met an entry that was being removed
    udp_clash = "udp_clash"  # two packets of one UDP socket made an entry at once: DNS queries, mostly
    # At the server.
    accept_queue_full = "accept_queue_full"
    syn_queue_full = "syn_queue_full"
    no_route_back = "no_route_back"  # the server cannot route its answer
    open_connection_reused = "open_connection_reused"  # the server still has a connection of these ports
    time_wait_reuse = "time_wait_reuse"  # it has one in TIME_WAIT, with newer time stamps
    answered_too_late = "answered_too_late"  # after the dialer's timeout
    # On the way.
    reverse_path_filter = "reverse_path_filter"
    no_route = "no_route"
    rejected = "rejected"  # by a firewall, or a route's end, with an ICMP error
    # What connect() said.
    refused = "refused"
    reset = "reset"
    unreachable = "unreachable"
    client_ports_exhausted = "client_ports_exhausted"
    client_port_taken = "client_port_taken"
    client_out_of_files = "client_out_of_files"
    other_error = "other_error"  # an errno without a name of its own here; the evidence names it
    # What nobody can tell.
    inconclusive = "inconclusive"  # several causes could account for it
    filtered = "filtered"  # no answer at all, and no counter: most likely a firewall's rule
    unexplained = "unexplained"  # no counter accounts for it
    not_watched = "not_watched"  # nobody read the NAT's counters


UNPROVEN = frozenset(
    {CauseName.inconclusive, CauseName.unexplained, CauseName.filtered, CauseName.not_watched}
)
"""Causes that leave open whether the losses were the race's."""


class Advice(StrEnum):
    """What to do about a cause."""

    draw_ports_at_random = "draw_ports_at_random"
    accept_chance = "accept_chance"  # nothing: ports drawn at random coincide now and then
    report_excess = "report_excess"  # drawn at random, and yet more collide than chance has it
    find_translating_rule = "find_translating_rule"  # no rule where we looked translates these
    count_entries_of_destination = "count_entries_of_destination"  # tells the race from exhaustion
    give_nat_more_ports = "give_nat_more_ports"
    raise_buckets = "raise_buckets"
    raise_conntrack_max = "raise_conntrack_max"
    look_for_full_table = "look_for_full_table"  # the kernel's log tells of one, however short it was
    rest_source_ports = "rest_source_ports"  # of clients, until their entries are gone
    resolve_udp_clashes = "resolve_udp_clashes"  # by a newer kernel, or by queries that do not meet
    tell_udp_clashes = "tell_udp_clashes"  # from the race: by the rules, and by what they change
    accept_faster = "accept_faster"
    match_entry_lifetime = "match_entry_lifetime"  # of the NAT's entries to the server's connections
    relieve_syn_queue = "relieve_syn_queue"
    add_route_back = "add_route_back"
    let_ports_rest = "let_ports_rest"
    raise_timeout = "raise_timeout"
    loosen_reverse_path_filter = "loosen_reverse_path_filter"
    mend_routes = "mend_routes"
    find_rejecting_rule = "find_rejecting_rule"
    start_server = "start_server"
    find_who_resets = "find_who_resets"
    check_routes_and_firewalls = "check_routes_and_firewalls"
    widen_local_ports = "widen_local_ports"
    free_source_port = "free_source_port"
    raise_open_files = "raise_open_files"
    look_up_errno = "look_up_errno"
    measure_alone = "measure_alone"  # or merge what all clients measured
    find_dropping_rule = "find_dropping_rule"
    check_path = "check_path"
    read_nat_counters = "read_nat_counters"


class RecordedText(Model):
    """The sentences of a file of version 1, which held no evidence as data."""

    evidence: str
    """What the file says of the evidence."""
    advice: str
    """What the file says is to be done."""


class CandidateCause(Model):
    """A cause that the counters could account for."""

    cause: CauseName
    """The cause."""
    at_most: Count
    """SYNs that it may have cost at the most, those of others included."""
    evidence: dict[str, Count] = {}
    """How far counters rose, and other facts, by name; which ones depends on the cause."""
    advice: Advice
    """What to do about it."""
    recorded: RecordedText | None = None
    """Sentences of a file of version 1; null: written by this version."""


class Cause(Model):
    """One cause and the number of losses it explains."""

    cause: CauseName
    """The cause."""
    losses: Count
    """Losses of this run that it explains."""
    at_most: Count | None = None
    """SYNs that its counters account for, those of others included; null: no counter is involved."""
    evidence: dict[str, Count] = {}
    """How far counters rose, and other facts, by name; which ones depends on the cause."""
    advice: Advice
    """What to do about it."""
    candidates: list[CandidateCause] = []
    """Of losses that several causes could account for: those causes."""
    recorded: RecordedText | None = None
    """Sentences of a file of version 1; null: written by this version."""


class Mitigation(Model):
    """How far a variant lowers the collision rate of the first."""

    name: str
    """Name of the variant."""
    loss_reduction: float | None
    """Share of the collisions that is gone, 1: all; null: the first has none, or nothing is paired."""
    ci95: tuple[float, float] | None
    """Its 95 % interval; null as above."""


class Verdict(Model):
    """What a lab run proves of its first variant, and what helps."""

    outcome: Outcome
    """What it proves."""
    reason: VerdictReason
    """Why."""
    dispersion: Amount = 1.0
    """Variance between rounds over that of a binomial; all intervals of collision rates allow for it."""
    mitigations: list[Mitigation]
    """The other variants, compared with the first."""


class WarningKind(StrEnum):
    """What makes a measurement doubtful. Comments name the values of each."""

    # Of one run.
    run_cut_off = "run_cut_off"  # its stream has no end
    counters_unread = "counters_unread"  # dials failed, and nobody read the NAT's counters
    some_rules_unread = "some_rules_unread"  # tools: whose rules could not be read, or not all of them
    ring_overruns = "ring_overruns"  # overruns: samples dropped
    many_late_slots = "many_late_slots"  # late, slots
    workers_share_cpus = "workers_share_cpus"  # workers, cpus, lanes: of a client
    lab_workers_share_cpus = "lab_workers_share_cpus"  # workers of all containers, cpus
    no_router = "no_router"  # remote: no NAT lies on the way to it
    nothing_lost_alone = "nothing_lost_alone"  # means nothing unless another client met these slots
    container_namespace = "container_namespace"  # namespace, device: it is a container's own
    clock_stepped = "clock_stepped"  # step_s: CLOCK_REALTIME was set forward (back, if negative)
    window_sweep_too_narrow = "window_sweep_too_narrow"  # tail_rate: still collide at its ends
    window_has_other_losses = "window_has_other_losses"  # unexplained: they count as collisions
    # Of several results that were merged.
    part_cut_off = "part_cut_off"  # kind, run_id
    hosts_unwatched = "hosts_unwatched"  # hosts: how many of the clients' were not watched
    watch_missed_some = "watch_missed_some"  # late_s after the first client, early_s before the last's end
    clocks_differ = "clocks_differ"  # run_id of a watch, ahead_s: its clock is that far ahead
    watch_at_other_time = "watch_at_other_time"  # run_id, apart_s: by two clocks, it ran that far away
    met_nobody = "met_nobody"  # run_id: it is the only client
    met_nobody_setting = "met_nobody_setting"  # run_id, setting, own, other
    met_nobody_time = "met_nobody_time"  # run_id
    met_nobody_destination = "met_nobody_destination"  # run_id
    met_nobody_host = "met_nobody_host"  # run_id
    # Of results that were compared; ``name`` is that of the result.
    unequal_work = "unequal_work"  # name, dials, baseline: dials of a client that were due
    unequal_work_of_labs = "unequal_work_of_labs"  # name, dials, baseline: the same of a lab's rule
    unlike_setting = "unlike_setting"  # name, key, value, baseline
    unlike_environment = "unlike_environment"  # name, key, value, baseline
    rendezvous_runs_differ = "rendezvous_runs_differ"  # of clients whose dials were timed to meet
    single_period = "single_period"  # name: drift of the machine does not show


class MeasurementWarning(Model):
    """One thing that makes the figures doubtful."""

    kind: WarningKind
    """What it is."""
    values: Values = {}
    """The numbers and names that its sentence needs; which ones depends on the kind."""
