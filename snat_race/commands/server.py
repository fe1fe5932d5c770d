"""``server``: accept and close."""

from snat_race.commands import arguments, first
from snat_race.kernel import host
from snat_race.options import ServerOptions


def server(
    local_addr: arguments.LocalAddr = "0.0.0.0:8080",
    workers: arguments.Acceptors = None,
    go_routines: arguments.GoRoutines = None,
) -> None:
    """Accept connections and close them at once."""
    from snat_race import server as runner

    options = ServerOptions(local_addr, first(workers, go_routines, len(host.usable_cpus())))
    accepted = runner.run(
        options,
        lambda endpoint: print(
            f"Ready to accept connections on {endpoint} with {options.workers} acceptors; Ctrl-C stops.",
            flush=True,
        ),
    )
    print(f"Stopped. Accepted {accepted:,} connections.")
