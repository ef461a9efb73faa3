"""Help is quick because it loads nothing heavy; modules are asserted, not seconds."""

import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import typer

from brainfed.cli import options
from brainfed.cli.app import app
from brainfed.core.cohort import Subset
from brainfed.core.labels import LabelProtocol
from brainfed.formats.roster import Role
from brainfed.formats.score_table import ScoredSpace
from brainfed.steps.report_facts import Reader
from tests.federation import Small, a_waiting_federation

HEAVY = {
    "torch",
    "numpy",
    "h5py",
    "SimpleITK",
    "pydantic",
    "safetensors",
    "cryptography",
    "filelock",
    "matplotlib",
    "jinja2",
    "rich",
}

LOADED_AFTER = """
import contextlib, io, json, sys
from brainfed.cli.app import run
codes = []
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()):
        codes.append(run(words))
print(json.dumps([codes, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def loaded_after(*lines: list[str]) -> set[str]:
    """Top-level modules in a fresh process after these command lines, each of which must work."""
    typed = [sys.executable, "-c", LOADED_AFTER, json.dumps(lines)]
    done = subprocess.run(typed, capture_output=True, text=True, check=True)
    codes, modules = json.loads(done.stdout)
    assert codes == [0] * len(lines), done.stderr
    return set(modules)


def all_commands() -> list[list[str]]:
    group = typer.main.get_command(app)
    inner = [["plan", name] for name in group.commands["plan"].commands]
    return [[], ["plan"], *([name] for name in group.commands), *inner]


def test_help_loads_nothing_heavy() -> None:
    assert loaded_after(["--help"]) & HEAVY == set()


def test_help_of_every_command_loads_no_more_than_typer_does() -> None:
    # typer 0.29 reads the options of a command with pydantic; brainfed adds nothing to it.
    loaded = loaded_after(*([*command, "--help"] for command in all_commands()))
    assert loaded & (HEAVY - {"pydantic"}) == set()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return a_waiting_federation(tmp_path_factory.mktemp("federation"))


def test_status_import_inspect_and_aggregate_never_load_torch(small: Small) -> None:
    coordinator = str(small.coordinator.root)
    update = next(small.coordinator.round_folder(1).glob("*.update.safetensors"))
    loaded = loaded_after(
        ["status", "--workspace", coordinator],
        ["import", str(small.medium("from-hospital-a")), "--workspace", coordinator],
        ["inspect", str(update), "--workspace", coordinator],
        ["aggregate", "--workspace", coordinator],
        ["status", "--rounds", "--workspace", coordinator],
        ["finish", "--round", "1", "--workspace", coordinator],
        ["export", "--workspace", coordinator],
        ["plan", "check", str(small.root / "plan.toml")],
    )
    assert "numpy" in loaded
    assert "torch" not in loaded


def test_help_fits_80_columns_and_has_no_colour_codes_when_piped(tmp_path: Path) -> None:
    program = "import sys; from brainfed.cli.app import run; sys.exit(run(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", program, "preprocess", "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={"COLUMNS": "80", "PYTHONIOENCODING": "utf-8"},
    )
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    assert "\x1b" not in done.stdout


def test_the_choices_of_options_are_those_of_the_code() -> None:
    assert set(get_args(options.RoleChoice)) == set(Role)
    assert set(get_args(options.LabelChoice)) == set(LabelProtocol)
    assert set(get_args(options.ReaderChoice)) == set(Reader)
    assert set(get_args(options.SubsetChoice)) == set(Subset) - {Subset.TRAIN}
    assert set(get_args(options.SpaceChoice)) == set(ScoredSpace) - {ScoredSpace.FILES}
