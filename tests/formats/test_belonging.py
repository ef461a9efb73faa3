"""The kinds of signed JSON that belong to a federation: what each of them refuses."""

import json
from typing import Any

import pytest

from brainfed import plan as plans
from brainfed.core import canonical
from brainfed.errors import ConflictError, MalformedError, PlanError
from brainfed.formats import amendment
from brainfed.formats.acceptance import Acceptance
from brainfed.formats.amendment import Amendment
from brainfed.formats.approval import Approval
from brainfed.formats.document import Belonging, PlanVersion
from brainfed.formats.final import Final
from brainfed.formats.scores import Figure, Scores
from tests.builders import a_plan
from tests.federation import DIGESTS

BASE: dict[str, Any] = {
    "purpose": "real",
    "federation": DIGESTS["one"],
    "sender": "hospital-a",
    "roster_version": 1,
}
PLAN = PlanVersion(version=1, digest=DIGESTS["two"])
NEW = a_plan(training={"rate": 0.5})
FIGURE: dict[str, Any] = {
    "subset": "validation",
    "group": "all",
    "measure": "dice",
    "region": "WT",
    "n": 7,
    "mean": 812_000,
    "sd": 90_000,
    "q1": None,
    "median": None,
    "q3": None,
}
EXAMPLES: dict[type[Belonging], dict[str, Any]] = {
    Acceptance: {
        "plan": PLAN,
        "from_round": 0,
        "weights_licence": "CC0-1.0",
        "agreement": None,
        "day": "2026-03-01",
    },
    Amendment: {
        "plan_text": plans.render(NEW),
        "plan": PlanVersion(version=2, digest=plans.plan_digest(NEW)),
        "previous": DIGESTS["two"],
        "from_round": 3,
        "day": "2026-03-01",
    },
    Scores: {
        "plan": PLAN,
        "round": 3,
        "edition": 1,
        "weights": DIGESTS["three"],
        "split": DIGESTS["one"],
        "n_cases": 9,
        "figures": (Figure(**FIGURE),),
        "day": "2026-03-01",
    },
    Approval: {
        "sender": "hospital-a.release",
        "round": 3,
        "edition": 1,
        "update": DIGESTS["three"],
        "page": None,
        "day": "2026-03-01",
    },
    Final: {
        "plan": PLAN,
        "round": 3,
        "edition": 1,
        "weights": DIGESTS["three"],
        "record": DIGESTS["one"],
        "weights_licence": "CC0-1.0",
        "day": "2026-03-01",
    },
}


def an_example(kind: type[Belonging], **changes: Any) -> Belonging:
    return kind.model_validate(BASE | EXAMPLES[kind] | changes)


@pytest.mark.parametrize("kind", EXAMPLES)
def test_each_kind_reads_back_and_takes_no_other_field(kind: type[Belonging]) -> None:
    data = an_example(kind).dumps()
    assert kind.loads(data) == an_example(kind)
    content = json.loads(data)
    for wrong in (
        content | {"note": "hello"},
        {key: value for key, value in content.items() if key != "day"},
        content | {"format": 0},
        content | {"format": 2},
        content | {"kind": "start"},
        content | {"day": "2026-02-30"},
        content | {"roster_version": 0},
        content | {"sender": "Dr. Smith"},
        content | {"federation": DIGESTS["one"].upper()},
    ):
        with pytest.raises(MalformedError):
            kind.loads(canonical.dumps(wrong))


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (Acceptance, {"from_round": -1}),
        (Acceptance, {"weights_licence": "free words"}),
        (Amendment, {"from_round": 0}),
        (Amendment, {"plan": PlanVersion(version=1, digest=plans.plan_digest(NEW))}),
        (Amendment, {"plan": PlanVersion(version=2, digest=DIGESTS["one"])}),
        (Amendment, {"plan_text": plans.render(NEW) + "# note\n"}),
        (Amendment, {"plan_text": 'name = "test"\n'}),
        (Amendment, {"plan_text": "no plan"}),
        (Scores, {"figures": (FIGURE, FIGURE)}),
        (Scores, {"figures": (FIGURE | {"subset": "validation"}, FIGURE | {"subset": "test"})}),
        (Scores, {"round": 10_000}),
        (Approval, {"sender": "hospital-a"}),
        (Approval, {"round": 0}),
        (Acceptance, {"from_round": 3}),
        (Acceptance, {"plan": PlanVersion(version=2, digest=DIGESTS["two"])}),
        (Final, {"edition": 0}),
        (Final, {"record": None}),
        (Final, {"round": 0}),
    ],
    ids=str,
)
def test_what_contradicts_itself_is_refused(kind: type[Belonging], changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=kind.__name__):
        an_example(kind, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"n": "fewer than 5"},
        {"n": "fewer than 5", "mean": None, "sd": None, "median": 1, "q1": 1, "q3": 1},
        {"median": 1},
        {"n": 0},
        {"mean": 10**12 + 1},
        {"mean": 0.5},
        {"group": "worst"},
    ],
    ids=str,
)
def test_a_figure_that_says_what_it_may_not_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Figure"):
        Figure(**(FIGURE | changes))


def test_a_figure_under_the_floor_says_nothing_but_that() -> None:
    nothing = dict.fromkeys(("mean", "sd", "q1", "median", "q3"))
    assert Figure(**(FIGURE | nothing | {"n": "fewer than 5"})).mean is None


def test_what_an_amendment_changes_is_told_key_by_key_as_in_the_file() -> None:
    new = a_plan(training={"rate": 0.5}, scans={"optional": ("t1",)})
    told = {c.key: (c.before, c.after) for c in amendment.changes(a_plan(), new)}
    assert told == {"training.rate": ("0.001", "0.5"), "scans.optional": ("[]", '["t1"]')}
    assert amendment.changes(new, new) == ()


def test_an_amendment_follows_the_newest_plan_and_its_round() -> None:
    content = an_example(Amendment)
    assert isinstance(content, Amendment)
    amendment.check_follows(content, version=PLAN, from_round=0, plan=a_plan())
    amendment.check_follows(content, version=PLAN, from_round=3, plan=a_plan())
    for version, from_round in (
        (PlanVersion(version=2, digest=DIGESTS["two"]), 0),
        (PlanVersion(version=1, digest=DIGESTS["one"]), 0),
        (PLAN, 4),
    ):
        with pytest.raises(ConflictError):
            amendment.check_follows(content, version=version, from_round=from_round, plan=a_plan())
    with pytest.raises(PlanError):
        amendment.check_follows(content, version=PLAN, from_round=0, plan=a_plan(seed=2))
