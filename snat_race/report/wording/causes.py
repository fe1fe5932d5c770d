"""The sentences of causes: the evidence for each, and what to do about it."""

from snat_race.report.wording.formats import filled_or_listed, plural
from snat_race.results.conclusions import Advice, CandidateCause, Cause, CauseName

_CLASHED = "insert_failed +{insert_failed:,}, drop +{drop:,}, found +{found:,}"
_UNCLEAR_DROPS = (
    "insert_failed +{insert_failed:,}, drop +{drop:,}, invalid +{invalid:,}, table {entries:,} of "
    "{most_entries:,}"
)
_RESOLVED_TOO = ", because insert_failed also counts entries whose packet passed"
_FILL = "{entries:entry}, {ports:port}"
_DROP_UNCOUNTED = "; before 4.7 a clash does not raise drop"
_RULES_UNREAD = "; nobody read the NAT's rule: if that has 32 ports or fewer, they may have run out"

RESOLVED_BY = (
    "what does is a kernel of 5.6 or newer, a DNS cache on each node, or 'options single-request-reopen' "
    "in resolv.conf"
)
"""What keeps packets of one UDP socket from clashing."""

_EVIDENCE = {
    CauseName.snat_race: _CLASHED,
    CauseName.nat_ports_exhausted: f"{_CLASHED}: {{found_per_search:taken port}} for each; {_FILL}",
    CauseName.conntrack_chain_too_long: "chaintoolong +{chain_toolong:,}, insert_failed +{insert_failed:,}",
    CauseName.conntrack_table_full: (
        "drop +{drop:,} beyond insert_failed, early_drop +{early_drop:,}, "
        "table {entries:,} of {most_entries:,}"
    ),
    CauseName.conntrack_entry_dying: (
        "drop +{drop:,}, invalid +{invalid:,}, table {entries:,} of {most_entries:,}: SYNs met entries "
        "that were being removed"
    ),
    CauseName.udp_clash: (
        f"{_CLASHED}: no rule here races, so two packets of one UDP socket came at once, DNS queries "
        "mostly; before 5.6 one of them is lost"
    ),
    CauseName.accept_queue_full: "ListenOverflows +{ListenOverflows:,} at the server",
    CauseName.syn_queue_full: (
        "TCPReqQFullDrop +{TCPReqQFullDrop:,}, ListenDrops +{ListenDrops:,} at the server"
    ),
    CauseName.no_route_back: (
        "OutNoRoutes +{IpOutNoRoutes:,}, ListenDrops +{ListenDrops:,}: the server has no route to answer on"
    ),
    CauseName.open_connection_reused: (
        "TCPSYNChallenge +{TCPSYNChallenge:,}: at the server that connection is open still"
    ),
    CauseName.time_wait_reuse: "{name} +{count:,} at the server, where a SYN sent again counts again",
    CauseName.answered_too_late: (
        "the server answered {answered_late:,} more than the dialers heard in time"
    ),
    CauseName.reverse_path_filter: "IPReversePathFilter +{IPReversePathFilter:,}",
    CauseName.no_route: "IpExtInNoRoutes +{IpExtInNoRoutes:,} at a router",
    CauseName.rejected: "IcmpInDestUnreachs +{IcmpInDestUnreachs:,} that the dials did not wait for",
    CauseName.filtered: "not one dial was answered, and no counter rose",
    CauseName.unexplained: "timeouts that no counter accounts for",
    CauseName.not_watched: "the NAT's counters were not read, so the cause cannot be told",
}
"""Evidence by cause; the fields are those of a cause's ``evidence``."""

_CONNECT_FAILED = "connect() failed with {name} {times}"
"""Evidence of the causes that an errno names."""

_INCONCLUSIVE = {
    Advice.count_entries_of_destination: (
        f"{_CLASHED}: snat_race or nat_ports_exhausted, because so many ports may be in use: {_FILL}"
    ),
    Advice.find_translating_rule: f"{_CLASHED}: but no rule there translates these",
    Advice.tell_udp_clashes: (
        f"{_CLASHED}: snat_race, or udp_clash: two packets of one UDP socket, DNS queries mostly, which "
        "this kernel counts alike"
    ),
    Advice.raise_conntrack_max: f"{_UNCLEAR_DROPS}: snat_race or conntrack_table_full{_RESOLVED_TOO}",
    Advice.rest_source_ports: f"{_UNCLEAR_DROPS}: snat_race or conntrack_entry_dying{_RESOLVED_TOO}",
    Advice.look_for_full_table: (
        "drop +{drop:,} beyond insert_failed, invalid +{invalid:,}, table {entries:,} of {most_entries:,}: "
        "conntrack_table_full between two readings, or memory was short"
    ),
}
"""Evidence of what is inconclusive, by what would tell."""

_ELSEWHERE = "a loss that no counter shows"
_CANDIDATES = {
    Advice.count_entries_of_destination: (CauseName.snat_race, CauseName.nat_ports_exhausted),
    Advice.find_translating_rule: (CauseName.snat_race,),
    Advice.tell_udp_clashes: (CauseName.snat_race, CauseName.udp_clash),
    Advice.raise_conntrack_max: (CauseName.snat_race, CauseName.conntrack_table_full),
    Advice.rest_source_ports: (CauseName.snat_race, CauseName.conntrack_entry_dying),
    Advice.look_for_full_table: (CauseName.conntrack_table_full,),
}
"""What inconclusive losses may be of that name no candidates, by what would tell."""

_ADVICE = {
    Advice.draw_ports_at_random: (
        "add --random-fully (nftables: fully-random) to the SNAT rule: see 'snat-race mitigate'"
    ),
    Advice.accept_chance: "nothing: two SYNs at once draw the same port now and then",
    Advice.report_excess: (
        "report it: this rule draws ports at random, and yet more SYNs collide than chance has it"
    ),
    Advice.find_translating_rule: (
        "look for the rule where it is: 'snat-race doctor' on each host on the way"
    ),
    Advice.count_entries_of_destination: (
        "count the entries of the destination, 'conntrack -L -d ADDRESS | wc -l': with far fewer than the "
        "NAT has ports, it is the race; or measure again when old entries have expired"
    ),
    Advice.give_nat_more_ports: ("give the NAT more ports or addresses, or the load more destinations"),
    Advice.raise_buckets: "raise net.netfilter.nf_conntrack_buckets",
    Advice.raise_conntrack_max: "raise net.netfilter.nf_conntrack_max",
    Advice.look_for_full_table: (
        "look for 'table full' in the kernel's log of that time ('dmesg -T'); if it is there, raise "
        "net.netfilter.nf_conntrack_max"
    ),
    Advice.rest_source_ports: (
        "let clients keep connections open, or give them more ports (net.ipv4.ip_local_port_range), so "
        "that a port rests until its entry is gone; 'conntrack -E -e DESTROY' shows who removes entries"
    ),
    Advice.resolve_udp_clashes: f"--random-fully does not help; {RESOLVED_BY}",
    Advice.tell_udp_clashes: (
        f"--random-fully does not cure clashes of UDP; {RESOLVED_BY}; rules that 'snat-race doctor' calls "
        "exposed race as well"
    ),
    Advice.accept_faster: "accept faster, or raise the backlog and net.core.somaxconn",
    Advice.match_entry_lifetime: (
        "let the NAT's entries live as long as the server's connections, or give it more ports"
    ),
    Advice.relieve_syn_queue: (
        "a SYN flood? set net.ipv4.tcp_syncookies=1, raise tcp_max_syn_backlog and net.core.somaxconn"
    ),
    Advice.add_route_back: "give the server a route back, or translate these addresses too",
    Advice.let_ports_rest: "give the NAT more ports or addresses, so that ports rest for longer",
    Advice.raise_timeout: (
        "raise the timeout; if that changes nothing, answers are lost on their way back"
    ),
    Advice.loosen_reverse_path_filter: (
        "mend the route back, or set net.ipv4.conf.*.rp_filter=2 (loose) or 0"
    ),
    Advice.mend_routes: "mend the routes of the hosts in between: 'ip route get ADDRESS' on each",
    Advice.find_rejecting_rule: (
        "a firewall REJECTs, or a route ends: 'iptables-save -c', 'nft list ruleset' count packets"
    ),
    Advice.start_server: "nobody listens at the destination; start the server",
    Advice.find_who_resets: "the destination, or a firewall, resets connections",
    Advice.check_routes_and_firewalls: "check routes and firewalls",
    Advice.widen_local_ports: "no SYN was sent: widen ip_local_port_range",
    Advice.free_source_port: "no SYN was sent: another program holds the source port",
    Advice.raise_open_files: "no SYN was sent: raise ulimit -n",
    Advice.look_up_errno: "see errno(3)",
    Advice.measure_alone: (
        "measure again while nothing else uses these hosts, merge what all clients measured with "
        "'snat-race report', or mend the one and see what is left"
    ),
    Advice.find_dropping_rule: (
        "look for a rule that drops ('iptables-save -c' and 'nft list ruleset' count packets), "
        "for the route, and whether the host is up; a full accept queue shows if the server's "
        "namespace is watched too"
    ),
    Advice.check_path: "packets may be lost elsewhere, or the timeout is too short for this path",
    Advice.read_nat_counters: (
        "add --watch-netns 1 (the host's; containers need --pid host), or run 'snat-race watch' at the NAT"
    ),
}

WHICH_RULES = "Which rules race, and what helps: 'snat-race doctor'."
"""What to do where the race is among what a node's counters account for."""

THIS_IS_THE_LABS_NAT = "This NAT is the lab's own. Whether a rule of this host races: 'snat-race doctor'."
"""What a lab that raced says of the host that it ran on."""


def name(cause: Cause | CandidateCause) -> str:
    """Return what a cause is called: the errno of an error that has no name of its own."""
    errnos = [*cause.evidence] if cause.cause == CauseName.other_error else []
    return errnos[0] if errnos else cause.cause.value


def in_short(cause: Cause) -> str:
    """Return the losses of a cause and its name; of what is inconclusive, the names of what it may be."""
    return f"{cause.losses:,} {name_or_names(cause)}"


def name_or_names(cause: Cause | CandidateCause) -> str:
    """Return the name of a cause, and of what is inconclusive the names of what it may be."""
    if cause.cause != CauseName.inconclusive:
        return name(cause)
    candidates = [candidate.cause for candidate in cause.candidates] if isinstance(cause, Cause) else []
    candidates += () if candidates else _CANDIDATES.get(cause.advice, ())
    perhaps = f" (perhaps {' or '.join(candidates)})" if candidates else ""
    return f"{name(cause)}{perhaps}"


def evidence(cause: Cause | CandidateCause) -> str:
    """Return why losses are put down to this cause, without a full stop."""
    if cause.recorded:
        return cause.recorded.evidence
    if cause.cause == CauseName.inconclusive:
        return _inconclusive(cause) + _beyond(cause)
    template = _EVIDENCE.get(cause.cause, _CONNECT_FAILED)
    # Of some causes the evidence is a single counter, or errno, that goes by several names.
    counter, count = next(iter(cause.evidence.items()), ("", 0))
    times = plural(count, "time")
    named = {"name": counter, "count": count, "times": times} if cause.evidence else {}
    sentence = filled_or_listed(template, named | cause.evidence)
    return sentence + _caveats(cause) + _beyond(cause)


def advice(cause: Cause | CandidateCause) -> str:
    """Return what to do about a cause, without a full stop."""
    return cause.recorded.advice if cause.recorded else _ADVICE[cause.advice]


def _inconclusive(cause: Cause | CandidateCause) -> str:
    if cause.advice in _INCONCLUSIVE:
        return filled_or_listed(_INCONCLUSIVE[cause.advice], cause.evidence) + _caveats(cause)
    candidates = cause.candidates if isinstance(cause, Cause) else []
    named = [
        f"{candidate.cause} (at most {candidate.at_most:,}: {evidence(candidate)})"
        for candidate in candidates
    ]
    return ", or ".join(named if len(named) > 1 else [*named, _ELSEWHERE])


def _caveats(cause: Cause | CandidateCause) -> str:
    """Say what the counters' kernel does not count, and what nobody has read."""
    drop_uncounted = _DROP_UNCOUNTED if "drop_uncounted" in cause.evidence else ""
    return drop_uncounted + (_RULES_UNREAD if "rules_unread" in cause.evidence else "")


def _beyond(cause: Cause | CandidateCause) -> str:
    """Say that counters account for more than this run lost."""
    if not isinstance(cause, Cause) or cause.at_most is None or cause.at_most <= cause.losses:
        return ""
    return f"; at most {cause.losses:,} of them are of this run"
