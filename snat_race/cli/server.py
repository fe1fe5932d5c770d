"""``server``: accept and close."""

import time

from snat_race.cli import help_text, parameters
from snat_race.cli.parsing import naming
from snat_race.runs.settings import ServerSettings

EXAMPLES = help_text.examples(
    ("Listen on port 8080 of every address", "snat-race server"),
    ("Listen on one address, with two processes", "snat-race server -r 10.18.10.137:8080 -c 2"),
)


def server(
    local_addr: parameters.LocalAddr = "0.0.0.0:8080",
    workers: parameters.Acceptors = None,
    quiet: parameters.QuietSummary = False,
) -> None:
    """Accept connections and close them at once."""
    from snat_race.kernel import host
    from snat_race.report.wording.formats import ancestor_stamp, plural
    from snat_race.runs import server as runner

    settings = ServerSettings(local_addr=local_addr, workers=workers or len(host.usable_cpus()))

    with naming("--local-addr"):
        listener = runner.server_of(settings)

    def ready() -> None:
        if not quiet:
            print(
                f"{ancestor_stamp(time.time_ns())} Ready to accept connections on {listener.endpoint} "
                f"with {plural(settings.workers, 'acceptor')}; Ctrl-C stops.",
                flush=True,
            )

    accepted, fault = runner.run(listener, ready)
    print(f"{ancestor_stamp(time.time_ns())} Stopped. Accepted {plural(accepted, 'connection')}.")
    if fault:
        raise fault
