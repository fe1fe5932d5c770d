"""``server``: accept and close."""

from snat_race.cli import parameters
from snat_race.cli.parsing import first, naming
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
    with naming("--local-addr"):
        listener = runner.server_of(options)
    ready = f"Ready to accept connections on {listener.endpoint} with {options.workers} acceptors"
    accepted = runner.run(listener, lambda: print(f"{ready}; Ctrl-C stops.", flush=True))
    print(f"Stopped. Accepted {accepted:,} connections.")
