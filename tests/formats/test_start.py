import json
from typing import Any

import pytest

from brainfed import plan as plans
from brainfed.core import canonical
from brainfed.core.architecture import network_digest
from brainfed.errors import MalformedError
from brainfed.formats import start
from brainfed.formats.start import Start
from tests.builders import a_plan
from tests.federation import DIGESTS, a_key, a_roster


def a_start(**plan_changes: Any) -> Start:
    roster = a_roster(uni_lead=a_key(1), hospital_a=a_key(2))
    return start.make(
        a_plan(**plan_changes), roster, purpose="real", nonce="0" * 32, day="2026-03-01"
    )


def test_a_start_reads_back_from_its_bytes() -> None:
    assert Start.loads(a_start().dumps()) == a_start()


def test_a_start_carries_the_complete_plan_and_its_three_digests() -> None:
    made = a_start()
    plan = plans.parse(made.plan_text.encode())
    assert plan == a_plan()
    assert made.plan.digest == plans.plan_digest(plan)
    assert made.data == plans.data_digest(plan)
    assert made.network == network_digest(plan)
    assert made.plan.version == 1


def test_an_agreement_is_named_by_its_digest_or_null() -> None:
    assert a_start().agreement is None
    assert a_start(terms={"agreement_sha256": DIGESTS["one"]}).agreement == DIGESTS["one"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("coordinator", "hospital-a"),
        ("data", DIGESTS["one"]),
        ("network", DIGESTS["one"]),
        ("plan", {"version": 1, "digest": DIGESTS["one"]}),
        ("plan", {"version": 2, "digest": plans.plan_digest(a_plan())}),
        ("weights_licence", "CC0-1.0"),
        ("agreement", DIGESTS["one"]),
        ("minimum_version", "9.9.9"),
        ("plan_text", plans.render(a_plan(rounds=9))),
        ("plan_text", plans.render(a_plan()) + "# a comment\n"),
        ("plan_text", 'name = "test"\n'),
        ("plan_text", "no plan"),
        ("plan_text", ""),
        ("nonce", "0" * 31),
        ("nonce", ""),
        ("purpose", "fun"),
        ("day", "1.3.2026"),
        ("day", "2026-03-01T10:00"),
        ("roster", None),
        ("note", "hello"),
    ],
)
def test_a_start_that_contradicts_its_plan_or_roster_is_refused(field: str, value: Any) -> None:
    content = json.loads(a_start().dumps())
    with pytest.raises(MalformedError):
        Start.loads(canonical.dumps(content | {field: value}))
