"""Why dials were lost."""

from snat_race.results.model import Model


class Cause(Model):
    """One cause and the number of losses it explains."""

    cause: str
    losses: int
    evidence: str
    advice: str
