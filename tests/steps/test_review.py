from pathlib import Path

from brainfed.formats import review as reviews
from brainfed.formats import workspace
from brainfed.formats.review import Decision, ReviewRow, Verdict
from brainfed.formats.roster import Role
from brainfed.steps import initialise, review


def test_what_waits_is_counted_and_a_decision_is_written_down(tmp_path: Path) -> None:
    initialise.initialise(tmp_path / "site", Role.SITE, "hospital-a")
    place = workspace.find(tmp_path / "site")
    assert review.show(place).rows == ()
    place.data.mkdir(exist_ok=True)
    verdicts = (Verdict.OK, Verdict.HELD, Verdict.HELD, Verdict.REFUSED)
    reviews.merge(
        place.data,
        [
            ReviewRow(case=f"{n:016x}", name=f"case {n}", verdict=verdict)
            for n, verdict in enumerate(verdicts)
        ],
    )
    assert review.show(place).n_open == 2
    row = review.decide(place, "case 1", Decision.ACCEPT, remark="fine")
    assert (row.name, row.decision, row.remark) == ("case 1", Decision.ACCEPT, "fine")
    shown = review.show(place)
    assert shown.n_open == 1
    assert [row.name for row in shown.rows] == ["case 3", "case 1", "case 2", "case 0"]
