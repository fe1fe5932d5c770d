"""Why dials were lost."""

from snat_race.analysis.model import Model


class Cause(Model):
    """One cause and the number of losses it explains."""

    cause: str
    losses: int
    evidence: str
    advice: str
