"""What a shell offers for values that are no enum."""

import os


def scenarios() -> list[tuple[str, str]]:
    """Return what ``--scenario`` takes, and what each is."""
    from snat_race.lab.scenarios import SCENARIOS

    return [(each.name, each.description) for each in SCENARIOS.values()]


def variants() -> list[tuple[str, str]]:
    """Return what ``--variant`` takes, and what each is."""
    from snat_race.lab.variants import ALL, VARIANTS

    named = {each.name: each.description for each in VARIANTS.values()} | {ALL: "all of these"}
    # bash, which alone sets COMP_WORDS, inserts what it is told: outside quotes a space needs a backslash.
    words = os.environ.get("COMP_WORDS")
    bare = words is not None and words.rpartition("\n")[2][:1] not in ("'", '"')
    return [(name.replace(" ", r"\ ") if bare else name, about) for name, about in named.items()]
