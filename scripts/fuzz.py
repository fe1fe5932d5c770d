"""``make fuzz``: give every parser changed inputs for some minutes, on all CPUs.

Prints how many inputs each target has had. Exits 1 if one raised anything but an error of ours, or took
too long, and prints the input, shrunk.
"""

import argparse
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from random import Random
from types import FrameType

from tests import fuzz_targets
from tests.fuzzing import TARGETS, Target

SLICE_S = 0.2  # how long one target has its turn
LONGEST_SHOWN = 2000
SLOWEST_S, LONGEST_S = 10, 120  # an input that takes more CPU time, or longer by the clock, is a fault


class TooSlowError(Exception):
    """An input took more than ``SLOWEST_S`` of CPU time, or waited for ``LONGEST_S``."""


def main() -> int:
    """Run all targets, or those that are named; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=None, help="of the random generator; default: the time")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], metavar="TARGET")
    options = parser.parse_args()
    seed = time.time_ns() if options.seed is None else options.seed
    names = options.targets or list(TARGETS)
    print(
        f"seed {seed}, {len(names)} targets of {fuzz_targets.__name__}, {options.minutes:g} min", flush=True
    )
    work = [(seed + number, options.minutes * 60, names) for number in range(options.processes)]
    counts: Counter[str] = Counter()
    faults: dict[tuple[str, str], str] = {}
    with multiprocessing.Pool(options.processes) as pool:
        for counted, seen in pool.imap_unordered(_fuzzed, work):
            counts += counted
            faults = seen | faults
    for name in names:
        print(f"{counts[name]:>12,} {name}")
    print(f"{counts.total():>12,} total, {len(faults)} faults")
    for (name, where), text in faults.items():
        print(
            f"\n{name}: {where}\n  {text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + '...'}"
        )
    return 1 if faults else 0


def _fuzzed(work: tuple[int, float, Sequence[str]]) -> tuple[Counter[str], dict[tuple[str, str], str]]:
    """Run targets in turn; return the inputs tried, and by target and place the fault's shrunk input."""
    seed, duration_s, names = work
    signal.signal(signal.SIGPROF, _too_slow)
    signal.signal(signal.SIGALRM, _too_slow)
    random = Random(seed)  # noqa: S311
    counts: Counter[str] = Counter()
    faults: dict[tuple[str, str], str] = {}
    until_s = time.monotonic() + duration_s
    while time.monotonic() < until_s:
        for name in random.sample(names, len(names)):
            slice_ends_s = min(until_s, time.monotonic() + SLICE_S)
            while time.monotonic() < slice_ends_s:
                _try_one(TARGETS[name], random, faults)
                counts[name] += 1
    return counts, faults


def _try_one(target: Target, random: Random, faults: dict[tuple[str, str], str]) -> None:
    text = target.mutated(random)
    signal.setitimer(signal.ITIMER_PROF, SLOWEST_S)
    signal.alarm(LONGEST_S)
    fault = target.fault_of(text)
    signal.alarm(0)
    signal.setitimer(signal.ITIMER_PROF, 0)
    if fault is None:
        return
    place = traceback.extract_tb(fault.__traceback__)[-1]
    key = (target.name, f"{type(fault).__name__} in {place.filename}:{place.lineno}: {str(fault)[:200]!r}")
    known = {(name, where.partition(": ")[0]) for name, where in faults}
    if (target.name, key[1].partition(": ")[0]) not in known:
        slow = isinstance(fault, TooSlowError)
        faults[key] = repr(text if slow else target.shrunk(text))


def _too_slow(_number: int, _frame: FrameType | None) -> None:
    raise TooSlowError(f"longer than {SLOWEST_S} s of CPU time, or {LONGEST_S} s")


if __name__ == "__main__":
    sys.exit(main())
