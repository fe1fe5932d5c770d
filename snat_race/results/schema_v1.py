"""Upgrades results and stream events of schema_version 1 to the present one: from dict to dict. Pure.

Version 1 kept causes, findings and the verdict as sentences. The numbers in them are lost as data:
sentences of causes and findings are kept as ``recorded``, and the reason of a verdict is worked out from
the counts.
"""

from typing import Any

from snat_race.results.conclusions import Advice, CauseName, VerdictReason
from snat_race.results.findings import Check
from snat_race.results.model import SCHEMA_VERSION

Document = dict[str, Any]

_VERSION = 1

# What version 1 judged by, see its analysis/verdict.py.
_MOST_OTHERS = 0.05
_STRAY_SHARE, _STRAY = 0.001, 2
_FEWEST_PAIRS = 100

_ADVICE = {
    CauseName.snat_race: Advice.draw_ports_at_random,
    CauseName.nat_ports_exhausted: Advice.give_nat_more_ports,
    CauseName.conntrack_chain_too_long: Advice.raise_buckets,
    CauseName.conntrack_table_full: Advice.raise_conntrack_max,
    CauseName.accept_queue_full: Advice.accept_faster,
    CauseName.syn_queue_full: Advice.relieve_syn_queue,
    CauseName.no_route_back: Advice.add_route_back,
    CauseName.open_connection_reused: Advice.match_entry_lifetime,
    CauseName.time_wait_reuse: Advice.let_ports_rest,
    CauseName.answered_too_late: Advice.raise_timeout,
    CauseName.reverse_path_filter: Advice.loosen_reverse_path_filter,
    CauseName.no_route: Advice.mend_routes,
    CauseName.rejected: Advice.find_rejecting_rule,
    CauseName.refused: Advice.start_server,
    CauseName.reset: Advice.find_who_resets,
    CauseName.unreachable: Advice.check_routes_and_firewalls,
    CauseName.client_ports_exhausted: Advice.widen_local_ports,
    CauseName.client_port_taken: Advice.free_source_port,
    CauseName.client_out_of_files: Advice.raise_open_files,
    CauseName.inconclusive: Advice.measure_alone,
    CauseName.filtered: Advice.find_dropping_rule,
    CauseName.unexplained: Advice.check_path,
    CauseName.not_watched: Advice.read_nat_counters,
}
"""The usual advice about each cause; what version 1 advised is kept as it was written."""


def upgraded(document: Document) -> Document:
    """Return a result, or an event of a stream, as the present version has it; newer ones as they are.

    Raises:
        ValueError: it is not as version 1 wrote it.

    """
    if document.get("schema_version") != _VERSION:
        return document
    try:
        return _upgraded(document)
    except KeyError as missing:
        raise ValueError(f"{missing} is missing, which schema_version 1 has") from missing
    except (AttributeError, IndexError, TypeError, ValueError) as failed:
        raise ValueError("a part of it is not as schema_version 1 has it") from failed


def _upgraded(document: Document) -> Document:
    new = document | {"schema_version": SCHEMA_VERSION}
    if "summary" in new:
        new["summary"] = _summary(new["summary"])
    if "periods" in new and new.get("kind") != "watch":
        new["periods"] = [_summary(period) for period in new["periods"]]
    if "diagnosis" in new:
        new["diagnosis"] = [_cause(cause) for cause in new["diagnosis"]]
    if "sources" in new:
        new["merged_from"] = new.pop("sources")
    if "suspects" in new:
        new["candidate_causes"] = [_candidate(cause) for cause in new.pop("suspects")]
    if "findings" in new:
        new["findings"] = [_finding(finding) for finding in new["findings"]]
    if "variants" in new:
        cpus = len(new["spec"].get("cpus") or new["environment"]["usable_cpus"])
        new["variants"] = [_variant(variant, cpus) for variant in new["variants"]]
        verdict = {name: value for name, value in new["verdict"].items() if name != "text"}
        new["verdict"] = verdict | {"reason": new["variants"][0]["reason"]}
    return new


def _summary(old: Document) -> Document:
    new = dict(old)
    if "watched" in new:
        new["counters"] = new.pop("watched")
    if "syn_resent" in new:
        new["syn_retransmits"] = new.pop("syn_resent")
    return new


def _cause(old: Document) -> Document:
    """Return a cause; one that was named after its errno is another error."""
    name = old["cause"]
    known = name in CauseName.__members__
    return {
        "cause": name if known else CauseName.other_error,
        "losses": old["losses"],
        "evidence": {} if known else {name.upper(): old["losses"]},
        "advice": _ADVICE[CauseName(name)] if known else Advice.look_up_errno,
        "recorded": {"evidence": old["evidence"], "advice": old["advice"]},
    }


def _candidate(old: Document) -> Document:
    new = _cause(old)
    new["at_most"] = new.pop("losses")
    return new


def _finding(old: Document) -> Document:
    """Return a finding of ``doctor``; all but its level was words."""
    return {
        "level": old["level"],
        "check": Check.other,
        "recorded": {name: old[name] for name in ("check", "evidence", "advice")},
    }


def _variant(old: Document, cpus: int) -> Document:
    new = dict(old)
    new["summary"] = _summary(old["summary"])
    new["periods"] = [_summary(period) for period in old.get("periods", [])]
    new["diagnosis"] = [_cause(cause) for cause in old["diagnosis"]]
    new["reason"] = _reason(old, cpus)
    return new


def _reason(variant: Document, cpus: int) -> VerdictReason:
    """Return why a variant was judged as it was."""
    raced = _losses(variant, CauseName.snat_race)
    if variant["outcome"] == "reproduced":
        return VerdictReason.lost_to_race
    if variant["outcome"] == "not_seen":
        return VerdictReason.by_chance if raced else VerdictReason.none_lost
    if variant.get("translated") is False:
        return VerdictReason.nothing_translated
    failed = variant["summary"]["failed"]
    stray = max(_STRAY, variant["summary"]["attempted"] * _STRAY_SHARE)
    if failed - raced > raced * _MOST_OTHERS + stray:
        may_be_the_race = raced + _losses(variant, CauseName.inconclusive)
        of_others = may_be_the_race <= failed * _MOST_OTHERS
        return VerdictReason.other_causes if of_others else VerdictReason.mixed_causes
    return _reason_of_pairs(variant["summary"].get("paired"), cpus)


def _reason_of_pairs(paired: int | None, cpus: int) -> VerdictReason:
    """Return why a variant that lost next to nothing proves nothing, in the order that version 1 asked."""
    if paired is None:
        return VerdictReason.dials_do_not_meet
    if cpus < 2:
        return VerdictReason.one_cpu
    return VerdictReason.too_few_pairs if paired < _FEWEST_PAIRS else VerdictReason.too_few_ports


def _losses(variant: Document, name: CauseName) -> int:
    return sum(int(cause["losses"]) for cause in variant["diagnosis"] if cause["cause"] == name)
