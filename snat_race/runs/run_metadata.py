"""What every result says of its run: which, when, for how long, on what machine."""

import time
import uuid
from typing import Any

from snat_race import __version__
from snat_race.kernel import host
from snat_race.kernel.host import utc_now
from snat_race.results.model import Tool


class RunMetadata:
    """Begins with the run."""

    def __init__(self) -> None:
        self.environment = host.environment()
        self._run_id, self._started_at, self._began_s = uuid.uuid4().hex, utc_now(), time.monotonic()

    def fields(self) -> dict[str, Any]:
        """Return what ``Result`` wants, but for the spec, as of now."""
        return {
            "run_id": self._run_id,
            "tool": Tool(version=__version__),
            "started_at": self._started_at,
            "elapsed_s": round(time.monotonic() - self._began_s, 3),
            "environment": self.environment,
        }
