"""A document as one HTML file that needs nothing else."""

from snat_race.analysis.model import Result
from snat_race.report.document import Document


def page(document: Document, result: Result) -> str:
    """Return the whole page."""
    raise NotImplementedError
