"""What the keys of the cache cover: all code that a step runs through, but for what is named."""

import ast
from collections.abc import Collection
from pathlib import Path
from types import ModuleType

import pytest

import brainfed
from brainfed.plan import BrainMask
from brainfed.steps import align, find_brain, make_case, read_scans

ROOT = Path(str(brainfed.__file__)).parent
NEVER = {
    "plan": "its values are in the keys themselves",
    "errors": "words and exit codes",
    "core.progress": "tells how far the work is",
    "formats.atomic": "puts a file in place",
    "formats.found_case": "says which file is what; the file's digest is in the key",
}
"""Modules of brainfed that decide nothing of what a step makes."""
CONVERSION = {
    "core.sequence_rule": "names series, before any is converted",
    "core.sequences": "the same",
    "core.contrast": "the same",
    "formats.modality_names": "the same",
    "core.flaws": "names and words of what is wrong",
    "formats.nifti": "checks the converted file, as again whenever it is read",
    "formats.cells": "the oldest age, which the table takes",
    "formats.dicom_study": "groups series into cases, before any is converted",
}
CASE = {
    "formats.cache": "keeps what a step made",
    "core.canonical": "spells the keys",
    "formats.dicom": "has keys of its own",
    "formats.dcm2niix": "the same",
    "formats.dicom_elements": "the same",
    "formats.dicom_header": "the same",
    "formats.dicom_series": "the same",
    "core.series": "the same",
    "core.slice_stack": "the same",
    "formats.dataset": "the index, not the case",
    "formats.case_file": "has a version of its own; what it can't read is made again",
    "formats.quality_page": "the page, not the case",
    "steps.case_page": "the same",
    "steps.aligned": "what was found, as data",
    "steps.recognise": "which file is what, before the case is made",
}


def imports_of(name: str) -> set[str]:
    """The modules of brainfed that one imports, wherever in its source."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / f"{name.replace('.', '/')}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("brainfed"):
            room = str(node.module).removeprefix("brainfed").lstrip(".")
            for alias in node.names:
                inside = f"{room}.{alias.name}".lstrip(".")
                is_module = (ROOT / f"{inside.replace('.', '/')}.py").exists()
                found.add(inside if is_module else room)
    return found


def all_behind(names: Collection[str], stop_at: Collection[str]) -> set[str]:
    seen: set[str] = set()
    left = set(names)
    while left:
        name = left.pop()
        seen.add(name)
        left |= imports_of(name) - seen - set(stop_at)
    return seen


@pytest.mark.parametrize(
    ("covered", "uncounted"),
    [
        pytest.param(align.REGISTERS, {}, id="register"),
        pytest.param(find_brain.CLASSICAL, {}, id="classical"),
        pytest.param(find_brain.DEEPBET, {}, id="deepbet"),
        pytest.param(read_scans.CONVERTS, CONVERSION, id="convert"),
        pytest.param((*make_case.modules(), *align.MODULES), CASE, id="case"),
    ],
)
def test_a_key_covers_all_code_that_the_step_runs_through(
    covered: tuple[ModuleType, ...], uncounted: dict[str, str]
) -> None:
    names = {module.__name__.removeprefix("brainfed.") for module in covered}
    assert len(names) == len(set(covered))
    exempt = {**NEVER, **uncounted}
    behind = all_behind(names, exempt)
    assert behind - names == set()
    reached = {other for name in behind for other in imports_of(name)}
    assert set(uncounted) <= reached | all_behind(set(uncounted), ()), "no more imported"
    assert not names & set(exempt)


def test_a_network_counts_by_the_version_of_what_runs_it() -> None:
    assert find_brain.libraries_of(BrainMask.DEEPBET) == ("torch",)
    assert find_brain.libraries_of(BrainMask.CLASSICAL) == ()
