"""``server``: accept and close."""

from snat_race.cli import parameters
from snat_race.cli.parsing import first
from snat_race.kernel import host
from snat_race.runs.settings import ServerSettings


def server(
    local_addr: parameters.LocalAddr = "0.0.0.0:8080",
    workers: parameters.Acceptors = None,
    go_routines: parameters.GoRoutines = None,
) -> None:
    """Accept connections and close them at once."""
    from snat_race.runs import server as runner

    options = ServerSettings(local_addr, first(workers, go_routines, len(host.usable_cpus())))
    accepted = runner.run(
        options,
        lambda endpoint: print(
            f"Ready to accept connections on {endpoint} with {options.workers} acceptors; Ctrl-C stops.",
            flush=True,
        ),
    )
    print(f"Stopped. Accepted {accepted:,} connections.")
