"""Whatever a parser is given, it ends with a value or an error of ours: see ``fuzz_targets.py``."""

import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from snat_race.errors import SnatRaceError
from tests import fuzz_targets
from tests.conftest import ROOT
from tests.fuzzing import TARGETS

EXAMPLES = 100


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), database=None)
@given(st.data())
def test_no_input_brings_a_parser_down(name: str, data: st.DataObject) -> None:
    target = TARGETS[name]
    text = data.draw(target.inputs)
    fault = target.fault_of(text)
    if fault:
        note(f"shrunk: {target.shrunk(text)!r}")
        raise fault


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_has_a_right_seed(name: str) -> None:
    """A parser that refuses its seeds is not looked into by changing them."""
    target = TARGETS[name]
    refusals = []
    for seed in target.seeds:
        try:
            target.run(seed)
        except SnatRaceError as refusal:
            refusals.append(refusal)
    assert len(refusals) < len(target.seeds), refusals


def test_every_target_is_registered() -> None:
    functions = {name for name in vars(fuzz_targets) if name.startswith("fuzz_")}
    assert {f"fuzz_{name}" for name in TARGETS} == functions


def test_the_long_run_counts_its_inputs_and_fails_on_a_fault() -> None:
    command = [sys.executable, "scripts/fuzz.py", "--minutes", "0.005", "--processes", "1"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "total" in done.stdout
