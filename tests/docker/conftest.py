"""What all tests against a real engine share: an image, a server beyond docker0, a host left as it was."""

from collections.abc import Callable, Iterator

import pytest

from tests.docker.engine import IMAGE, answers, rules_and_devices, run

_figures = list[str]()


@pytest.fixture(scope="session", autouse=True)
def own_host() -> None:
    """None of its own: the engine's host is what these tests are about."""


@pytest.fixture(scope="session", autouse=True)
def image() -> Iterator[None]:
    """The image, built once. At the end the host's rules and devices are as they were."""
    if reason := answers():
        pytest.skip(reason)
    run("make", "docker-build", f"IMAGE={IMAGE}")
    before = rules_and_devices()
    yield
    assert rules_and_devices() == before


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    """A server beyond docker0."""
    assert run("scripts/docker-server", "up").stdout == "10.18.10.137:8080\n"
    yield
    run("scripts/docker-server", "down")


@pytest.fixture
def figure() -> Callable[[str], None]:
    """Take down what was measured, for the end."""
    return _figures.append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for each in _figures:
        terminalreporter.write_line(f"measured: {each}")
