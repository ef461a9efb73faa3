from typing import Any

import pytest

from brainfed.core import canonical
from brainfed.errors import MalformedError
from brainfed.formats.document import PlanVersion
from brainfed.formats.record import Input, InputStatus, Reason, Record
from tests.federation import DIGESTS


def an_input(sender: str = "hospital-a", **changes: Any) -> Input:
    fields: dict[str, Any] = {
        "sender": sender,
        "digest": DIGESTS["one"],
        "weight": 3,
        "status": InputStatus.INCLUDED,
        "reason": None,
    }
    return Input.model_validate(fields | changes)


def a_record(**changes: Any) -> Record:
    fields: dict[str, Any] = {
        "purpose": "real",
        "federation": DIGESTS["one"],
        "plan": PlanVersion(version=1, digest=DIGESTS["two"]),
        "round": 1,
        "edition": 1,
        "supersedes": None,
        "sender": "uni-lead",
        "roster_version": 1,
        "rule": "fedavg",
        "weights_by": "patients",
        "parent": DIGESTS["three"],
        "inputs": (an_input(),),
        "next_site": None,
        "global_digest": DIGESTS["one"],
        "state_digest": None,
        "day": "2026-03-01",
    }
    return Record.model_validate(fields | changes)


def test_a_record_reads_back_from_its_bytes() -> None:
    assert Record.loads(a_record().dumps()) == a_record()


def test_all_fields_are_written_the_unused_ones_as_null() -> None:
    content = canonical.loads(a_record().dumps())
    assert set(content) == set(Record.model_fields)
    assert content["next_site"] is content["state_digest"] is content["supersedes"] is None


def test_an_absent_and_an_excluded_site_are_recorded() -> None:
    absent = an_input("hospital-b", digest=None, weight=0, status=InputStatus.ABSENT)
    late = an_input("hospital-c", weight=0, status=InputStatus.EXCLUDED, reason=Reason.LATE)
    assert a_record(inputs=(an_input(), absent, late)).inputs[2].reason is Reason.LATE


@pytest.mark.parametrize(
    "changes",
    [
        {"weight": 0},
        {"digest": None},
        {"reason": Reason.LATE},
        {"status": InputStatus.ABSENT},
        {"status": InputStatus.EXCLUDED, "weight": 0},
        {"status": InputStatus.EXCLUDED, "reason": Reason.LATE},
        {"status": InputStatus.ABSENT, "weight": 0, "reason": Reason.LATE},
        {"status": InputStatus.ABSENT, "weight": 0},
        {"weight": 2**29},
        {"weight": -1},
    ],
)
def test_an_input_that_contradicts_itself_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"exactly where|weight|absent"):
        an_input(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": (an_input("hospital-b"), an_input("hospital-a"))},
        {"inputs": (an_input(), an_input())},
        {"inputs": (an_input(weight=2**28), an_input("hospital-b", weight=2**28))},
        {"edition": 2},
        {"supersedes": DIGESTS["one"]},
        {"round": 0},
        {"round": 10_000},
        {"rule": "mode"},
        {"day": "today"},
    ],
)
def test_a_record_that_contradicts_itself_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Record"):
        a_record(**changes)


def test_an_unknown_field_of_an_input_is_refused() -> None:
    content = canonical.loads(a_record().dumps())
    content["inputs"][0]["comment"] = "too few patients"
    with pytest.raises(MalformedError) as caught:
        Record.loads(canonical.dumps(content))
    assert caught.value.where == "inputs.0.comment"
