import json
from typing import Any

import pytest

from brainfed.core import canonical
from brainfed.errors import MalformedError
from brainfed.formats.document import PlanVersion
from brainfed.formats.manifest import Kind, Manifest, Score
from tests.federation import DIGESTS


def an_update(**changes: Any) -> Manifest:
    fields: dict[str, Any] = {
        "kind": Kind.UPDATE,
        "purpose": "real",
        "federation": DIGESTS["one"],
        "plan": PlanVersion(version=1, digest=DIGESTS["two"]),
        "round": 1,
        "edition": 1,
        "sender": "hospital-a",
        "roster_version": 1,
        "parent": DIGESTS["three"],
        "split": DIGESTS["one"],
        "n_patients": 12,
        "n_cases": 13,
        "n_slices": 1500,
        "n_validation": 5,
        "scores": (),
        "versions": {"brainfed": "0.1.0", "torch": "2.13.0+cpu"},
    }
    return Manifest.model_validate(fields | changes)


def no_counts() -> dict[str, None]:
    return dict.fromkeys(("split", "n_patients", "n_cases", "n_slices", "n_validation"))


def a_score(**changes: Any) -> Score:
    fields: dict[str, Any] = {
        "weights": "incoming",
        "subset": "validation",
        "measure": "dice",
        "region": "WT",
        "n": 5,
        "mean": 812_345,
        "sd": 1,
    }
    return Score.model_validate(fields | changes)


def test_a_manifest_reads_back_from_its_bytes() -> None:
    manifest = an_update(scores=(a_score(), a_score(n="fewer than 5", mean=None, sd=None)))
    assert Manifest.loads(manifest.dumps()) == manifest


def test_all_fields_are_written_the_unused_ones_as_null() -> None:
    manifest = an_update(kind=Kind.GLOBAL, sender="uni-lead", **no_counts())
    content = canonical.loads(manifest.dumps())
    assert set(content) == set(Manifest.model_fields)
    assert content["n_patients"] is None


def test_no_field_takes_free_text() -> None:
    """Every string of a manifest is an Enum, a digest, a name, a version, or "fewer than"."""

    def strings(schema: Any) -> list[dict[str, Any]]:
        if isinstance(schema, list):
            return [found for item in schema for found in strings(item)]
        if not isinstance(schema, dict):
            return []
        here = [schema] if schema.get("type") == "string" else []
        return here + [found for item in schema.values() for found in strings(item)]

    found = strings(Manifest.model_json_schema())
    assert len(found) > 5
    assert all({"pattern", "enum", "const"} & set(schema) for schema in found)


@pytest.mark.parametrize(
    "changes",
    [
        {"n_patients": None},
        {"n_validation": None},
        {"split": None},
        {"kind": Kind.GLOBAL},
        {"parent": None},
        {"round": 0},
        {"round": 0, "parent": None},
        {"round": 10_000},
        {"edition": 0},
        {"n_slices": 2**29},
        {"n_patients": -1},
        {"n_patients": 1.5},
        {"sender": "Dr. Smith"},
        {"sender": "a\n"},
        {"purpose": "test"},
        {"federation": DIGESTS["one"].upper()},
        {"versions": {"host": "machine-7"}},
        {"versions": {"torch": "2.1 on machine-7"}},
        {"n_validation": "fewer than you think"},
        {"n_validation": "fewer than 0"},
    ],
    ids=str,
)
def test_a_manifest_that_contradicts_itself_or_says_too_much_is_refused(
    changes: dict[str, Any],
) -> None:
    with pytest.raises(ValueError, match="Manifest"):
        an_update(**changes)
    wrong = json.loads(an_update().dumps()) | json.loads(json.dumps(changes))
    with pytest.raises(MalformedError):
        Manifest.loads(json.dumps(wrong, sort_keys=True, separators=(",", ":")).encode())


@pytest.mark.parametrize(
    "changes",
    [
        {"mean": 1_000_001},
        {"mean": -1},
        {"mean": 0.8},
        {"n": 0},
        {"n": "fewer than 5"},
        {"n": "fewer than 5", "mean": None},
        {"region": "XX"},
        {"measure": "loss"},
    ],
    ids=str,
)
def test_a_score_that_says_what_it_may_not_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Score"):
        a_score(**changes)


def test_false_is_no_count() -> None:
    content = canonical.loads(an_update().dumps()) | {"n_cases": True}
    with pytest.raises(MalformedError):
        Manifest.loads(canonical.dumps(content))
