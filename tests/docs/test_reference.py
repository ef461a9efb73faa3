"""The reference is made from the code, and says all that the code has."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import typer

from brainfed import plan as plans
from brainfed.cli.app import app

ROOT = Path(__file__).resolve().parents[2]


def _generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = _generate()


@pytest.mark.parametrize("name", list(generate.makers()))
def test_a_page_of_the_reference_is_what_the_code_gives(name: str) -> None:
    page = (ROOT / "docs" / "reference" / name).read_text("utf-8")
    assert page == generate.makers()[name](), "run `python docs/generate.py`"


def test_every_command_is_on_its_page() -> None:
    page = generate.makers()["commands.md"]()
    for name, command in typer.main.get_command(app).commands.items():
        for sub in getattr(command, "commands", [""]):
            assert f"### brainfed {name} {sub}".rstrip() + "\n" in page


def test_every_key_of_a_plan_is_on_its_page_with_a_description() -> None:
    page = generate.makers()["plan.md"]()
    for key in plans.known_keys():
        table, _, name = key.rpartition(".")
        section = page.partition(f"## [{table}]\n")[2] if table else page
        row = re.search(rf"^\| `{name}` \| .+ \| .+ \| (.+) \|$", section, re.MULTILINE)
        assert row, key
        assert len(row[1]) > 5, key


def test_every_error_of_the_code_is_on_its_page_under_its_exit_code() -> None:
    page = generate.makers()["errors.md"]()
    for path in (ROOT / "src").rglob("*.py"):
        for name in re.findall(r"^class (\w+)\(\w*Error\):", path.read_text(), re.MULTILINE):
            assert f"| `{name}` |" in page, f"{name} of {path.name}"
    assert {kind.exit_code for kind in generate.error_classes()} == {*generate.EXIT_CODES}
