"""What a shell is told when it asks how a line could go on."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.reference import COMPLETIONS
from tests.conftest import ROOT, SOON_S, clean_environment, fork_cli

BASH = pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")


def completed(*words: str) -> list[str]:
    """What bash would be given for the last of these words."""
    asked = {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
    done = fork_cli(_SNAT_RACE_COMPLETE="complete_bash", **asked)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("s", ["server"]),
        ("cl", ["client"]),
        ("client --mo", ["--mode"]),
        ("client --mode ", ["rendezvous", "independent"]),
        ("lab --backend ipt", ["iptables", "iptables-legacy"]),
        ("lab --scenario ti", ["time-wait"]),
        ("lab --variant no", [r"no\ nat", "notrack"]),
        ("lab --list --sc", ["--scenario"]),
        ("report --schema --fo", ["--format"]),
        ("client --timeout-ms oops --js", ["--json"]),
    ],
)
def test_commands_options_and_values(line: str, offered: list[str]) -> None:
    assert completed("snat-race", *line.split(" ")) == offered


def test_inside_quotes_a_space_needs_no_backslash() -> None:
    assert completed("snat-race", "lab", "--variant", "'no n") == ["no nat"]


def test_zsh_and_fish_are_told_what_each_value_is() -> None:
    asked = {
        "_TYPER_COMPLETE_ARGS": "snat-race lab --scenario ti",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    for shell, between in (("zsh", '":"'), ("fish", "\t")):
        done = fork_cli(_SNAT_RACE_COMPLETE=f"complete_{shell}", **asked)
        assert f"time-wait{between}connections closed by FIN" in done.stdout


@pytest.mark.parametrize(
    ("shell", "registers"),
    [
        ("bash", "complete -o default -F _snat_race_completion snat-race"),
        ("zsh", "compdef _snat_race_completion snat-race"),
        ("fish", "complete --command snat-race"),
    ],
)
def test_the_script_of_each_shell_is_for_our_name(shell: str, registers: str) -> None:
    assert registers in fork_cli(_SNAT_RACE_COMPLETE=f"source_{shell}").stdout


def in_bash(home: Path, script: str) -> str:
    return in_shell(["bash", "--norc", "-c", script], home)


def in_shell(command: list[str], home: Path) -> str:
    """What a real shell says, in which ``snat-race`` is this program."""
    program = home / "snat-race"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m snat_race "$@"\n')
    program.chmod(0o755)
    there = clean_environment(HOME=str(home))
    there["PATH"] = f"{home}:{there['PATH']}"
    return subprocess.run(
        command, capture_output=True, text=True, timeout=SOON_S, check=True, env=there
    ).stdout


ASK = "COMP_WORDS=(snat-race mit); COMP_CWORD=1; _snat_race_completion snat-race; echo ${COMPREPLY[@]}"


@BASH
def test_bash_completes_by_what_show_completion_prints(tmp_path: Path) -> None:
    assert in_bash(tmp_path, f'eval "$(snat-race --show-completion)"; {ASK}') == "mitigate\n"


@BASH
def test_bash_completes_once_installed(tmp_path: Path) -> None:
    said = in_bash(tmp_path, f"snat-race --install-completion; . ~/.bashrc; {ASK}")
    assert said.startswith("bash completion installed in")
    assert said.endswith("mitigate\n")


# What a package brings, for everybody. Each shell finds the file by its name and place.


@BASH
def test_bash_completes_by_the_file_of_the_package(tmp_path: Path) -> None:
    assert in_bash(tmp_path, f". {ROOT / COMPLETIONS['bash']}; {ASK}") == "mitigate\n"


@pytest.mark.skipif(not shutil.which("zsh"), reason="there is no zsh")
def test_zsh_completes_by_the_file_of_the_package_at_the_first_word(tmp_path: Path) -> None:
    """The file is loaded as a function then, and has to answer as well."""
    script = f"""
        compdef() {{ }}; _describe() {{ print -r -- ${{(P)2}} }}; _arguments() {{ print -r -- "$@" }}
        fpath=({(ROOT / COMPLETIONS["zsh"]).parent}); autoload -U _snat-race
        words=(snat-race mit); CURRENT=2; _snat-race
    """
    assert "mitigate" in in_shell(["zsh", "-f", "-c", script], tmp_path)


@pytest.mark.skipif(not shutil.which("fish"), reason="there is no fish")
def test_fish_completes_by_the_file_of_the_package(tmp_path: Path) -> None:
    script = f"source {ROOT / COMPLETIONS['fish']}; complete -C 'snat-race mit'"
    assert in_shell(["fish", "--no-config", "-c", script], tmp_path).startswith("mitigate\t")


def test_neither_help_nor_a_completion_waits_for_netlink() -> None:
    loaded = "import sys, snat_race.cli.app; sys.exit('pyroute2' in sys.modules or 'numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", loaded], check=True, timeout=SOON_S, env=clean_environment())
