import json
from typing import Any

import pytest

from brainfed.core import canonical
from brainfed.errors import MalformedError
from brainfed.formats.erasure import Erased, Erasure, ErasureReason, Kept
from tests.federation import DIGESTS

EXAMPLE: dict[str, Any] = {
    "purpose": "real",
    "federation": DIGESTS["one"],
    "sender": "hospital-a",
    "roster_version": 1,
    "edition": 1,
    "reason": ErasureReason.LEFT,
    "n_patients": 12,
    "n_cases": 15,
    "dataset": DIGESTS["two"],
    "split": DIGESTS["three"],
    "erased": tuple(Erased),
    "kept": tuple(Kept),
    "day": "2026-03-01",
}


def an_erasure(**changes: Any) -> Erasure:
    return Erasure.model_validate(EXAMPLE | changes)


def test_an_erasure_reads_back_and_takes_no_other_field() -> None:
    data = an_erasure().dumps()
    assert Erasure.loads(data) == an_erasure()
    content = json.loads(data)
    for wrong in (
        content | {"note": "as Dr. Smith asked"},
        {key: value for key, value in content.items() if key != "split"},
        content | {"format": 2},
        content | {"kind": "final"},
        content | {"reason": "Mrs. Jones asked"},
        content | {"erased": ["scans"]},
        content | {"kept": ["ledger", "federation"]},
        content | {"day": "2026-02-30"},
        content | {"sender": "hospital-a.release "},
    ):
        with pytest.raises(MalformedError):
            Erasure.loads(canonical.dumps(wrong))


@pytest.mark.parametrize(
    "changes",
    [
        {"n_patients": "fewer than 5"},
        {"n_cases": None},
        {"erased": (Erased.CASES, Erased.CASES)},
        {"kept": (Kept.LEDGER, Kept.FEDERATION)},
        {"edition": 0},
        {"n_patients": "five"},
        {"n_patients": -1},
    ],
    ids=str,
)
def test_what_contradicts_itself_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Erasure"):
        an_erasure(**changes)


def test_below_the_floor_it_says_nothing_but_that() -> None:
    assert an_erasure(n_patients="fewer than 5", n_cases=None).n_cases is None


def test_the_words_are_in_the_order_in_which_a_file_has_them() -> None:
    assert list(Erased) == sorted(Erased)
    assert list(Kept) == sorted(Kept)
