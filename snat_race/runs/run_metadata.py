"""What every result says of its run: which, when, for how long, on what machine."""

import time
import uuid
from typing import Any

from snat_race import __version__
from snat_race.kernel import host
from snat_race.kernel.host import utc_now
from snat_race.results.model import Tool


class RunMetadata:
    """The identity of one run. Make it as the run begins: its clock starts then."""

    def __init__(self) -> None:
        self._run_id = uuid.uuid4().hex
        self._started_at = utc_now()
        self._began_s = time.monotonic()
        self._environment = host.environment()

    def fields(self) -> dict[str, Any]:
        """Return the fields that all results share, except ``spec``; ``elapsed_s`` is as of now."""
        return {
            "run_id": self._run_id,
            "tool": Tool(version=__version__),
            "started_at": self._started_at,
            "elapsed_s": round(time.monotonic() - self._began_s, 3),
            "environment": self._environment,
        }
