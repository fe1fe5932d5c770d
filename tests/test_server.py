import signal
import socket

import psutil
import pytest

from tests.conftest import SOON_S, RunningServer, eventually, fork_cli, gone


def connect(host: str, port: int) -> None:
    with socket.create_connection((host, port), timeout=SOON_S) as sock:
        assert sock.recv(1) == b"", "the server closes at once"


def test_it_accepts_closes_and_counts(server: RunningServer, port: int) -> None:
    for _ in range(7):
        connect("127.0.0.1", port)
    assert server.stop() == 7


def test_it_stops_on_sigterm(server: RunningServer, port: int) -> None:
    connect("127.0.0.1", port)
    assert server.stop(signal.SIGTERM) == 1


def test_it_listens_on_ipv6(port: int) -> None:
    server = RunningServer(f"[::1]:{port}")
    connect("::1", port)
    assert server.stop() == 1


def test_it_listens_on_a_range_of_ports() -> None:
    server = RunningServer("127.0.0.1:18080-18083", "-c", "2")
    for port in range(18080, 18084):
        connect("127.0.0.1", port)
    assert server.stop() == 4


def test_an_address_in_use_is_one_line_and_exit_4(server: RunningServer) -> None:
    done = fork_cli("server", "-r", server.address)
    assert done.returncode == 4
    assert done.stderr.count("\n") == 1
    assert "in use" in done.stderr


def test_of_a_range_that_is_in_use_in_part_the_port_is_named_and_none_is_kept(
    server: RunningServer,
) -> None:
    port = int(server.address.rpartition(":")[2])
    done = fork_cli("server", "-r", f"127.0.0.1:{port - 1}-{port}")
    assert (done.returncode, f"127.0.0.1:{port} is in use" in done.stderr) == (4, True), done.stderr


def test_an_address_of_another_machine_is_no_place_to_listen(port: int) -> None:
    done = fork_cli("server", "-r", f"203.0.113.9:{port}")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "203.0.113.9 is not an address of this machine; 'ip address' lists them" in done.stderr


def test_it_survives_want_of_files(port: int) -> None:
    server = RunningServer(f"127.0.0.1:{port}", "-c", "1")
    (acceptor,) = psutil.Process(server.process.pid).children()
    soft, hard = acceptor.rlimit(psutil.RLIMIT_NOFILE)
    acceptor.rlimit(psutil.RLIMIT_NOFILE, (3, hard))
    with socket.create_connection(("127.0.0.1", port), timeout=SOON_S) as waiting:
        waiting.settimeout(0.3)
        with pytest.raises(TimeoutError):
            waiting.recv(1)
        acceptor.rlimit(psutil.RLIMIT_NOFILE, (soft, hard))
        waiting.settimeout(SOON_S)
        assert waiting.recv(1) == b""
    connect("127.0.0.1", port)
    assert server.stop() == 2


def test_a_dead_acceptor_is_reported(port: int) -> None:
    server = RunningServer(f"127.0.0.1:{port}", "-c", "2")
    psutil.Process(server.process.pid).children()[0].kill()
    _, err = server.process.communicate(timeout=SOON_S)
    assert server.process.returncode == 1
    assert "killed by SIGKILL" in err


def test_acceptors_die_with_a_killed_parent(port: int) -> None:
    server = RunningServer(f"127.0.0.1:{port}", "-c", "2")
    acceptors = psutil.Process(server.process.pid).children()
    server.process.kill()
    server.process.communicate()
    eventually(lambda: all(gone(each) for each in acceptors), within_s=1)
