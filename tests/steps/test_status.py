import hashlib
import re
from pathlib import Path

import pytest

from brainfed.formats.record import Reason
from brainfed.formats.roster import Role
from brainfed.steps.admit import admit, revoke
from brainfed.steps.aggregate import aggregate
from brainfed.steps.exchange import export
from brainfed.steps.status import status
from brainfed.steps.taking_part import Wishes
from tests.approving import an_approving_federation, ready
from tests.builders import a_plan, write_dataset
from tests.federation import (
    TODAY,
    Small,
    a_federation,
    a_workspace,
    an_unstarted_federation,
    carry,
    close_round,
    enrolment_of,
    say_yes,
    sign,
    snapshot,
    start,
    train,
)
from tests.scored import rows_of, score, with_a_split


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return a_federation(tmp_path)


def todo(place) -> str:
    before = snapshot(place)
    text = " | ".join(status(place).todo)
    assert snapshot(place) == before, "looking changed something"
    return text


def test_before_the_start_each_side_is_told_what_to_do(tmp_path: Path) -> None:
    small = an_unstarted_federation(tmp_path)
    assert "brainfed admit" in todo(small.coordinator)
    assert "enrolment" in todo(small.sites["hospital-a"])
    admit(small.coordinator, [enrolment_of(s) for s in small.sites.values()], confirm=say_yes)
    assert "brainfed start" in todo(small.coordinator)


def test_the_coordinator_sees_whose_update_is_missing(small: Small) -> None:
    train(small.sites["hospital-a"])
    carry(small.sites["hospital-a"], small.coordinator, small.medium())
    found = status(small.coordinator)
    assert {seat.site: seat.has_sent for seat in found.seats} == {
        "hospital-a": True,
        "hospital-b": False,
    }
    assert "hospital-b" in " ".join(found.todo)
    assert "aggregate" not in " ".join(found.todo)


def test_with_all_updates_the_round_is_to_be_closed(small: Small) -> None:
    for site in small.sites.values():
        train(site)
        carry(site, small.coordinator, small.medium(site.name))
    assert status(small.coordinator).todo[0].endswith("brainfed aggregate")
    aggregate(small.coordinator, today=TODAY)
    found = status(small.coordinator)
    assert found.closed_round == 1
    assert not any(seat.has_sent for seat in found.seats)
    assert "export" in found.todo[0]


def test_with_a_quorum_the_coordinator_may_go_on(tmp_path: Path) -> None:
    plan = a_plan(participation={"quorum_sites": 1, "floor": 1})
    small = a_federation(tmp_path, plan=plan)
    train(small.sites["hospital-a"])
    carry(small.sites["hospital-a"], small.coordinator, small.medium())
    assert "go on without hospital-b: brainfed aggregate" in todo(small.coordinator)


def test_a_site_is_led_through_its_round(small: Small) -> None:
    site = small.sites["hospital-a"]
    assert "preprocess" in todo(site)
    write_dataset(site.data)
    split = site.data / "split.json"
    content = split.read_bytes()
    split.unlink()
    assert "brainfed split" in todo(site)
    split.write_bytes(content)
    assert "Train round 1" in todo(site)
    train(site)
    assert "export" in todo(site)
    export(site, small.medium())
    assert "Bring" in todo(site)
    assert "uni-lead" in todo(site)


def test_a_site_without_weights_is_told_to_import_them(small: Small) -> None:
    site = small.sites["hospital-a"]
    for path in site.round_folder(0).iterdir():
        path.unlink()
    assert "Import the global weights of round 0 from uni-lead" in todo(site)


def test_after_the_last_round_nobody_waits_for_another(small: Small) -> None:
    for _ in range(2):
        close_round(small)
    found = status(small.coordinator)
    assert (found.closed_round, found.rounds_planned) == (2, 2)
    assert "All 2 rounds" in found.todo[0]
    assert not any("wait" in todo for todo in found.todo)
    assert "recovery" in found.todo[-1]
    small.coordinator.recovery_path.unlink()  # somebody has moved it to the safe
    assert "brainfed finish" in status(small.coordinator).todo[1]
    assert len(status(small.coordinator).todo) == 2
    write_dataset(small.sites["hospital-a"].data)
    assert "All rounds of the plan are closed" in todo(small.sites["hospital-a"])


def test_at_the_end_scores_are_made_signed_and_brought_one_after_the_other(small: Small) -> None:
    for _ in range(2):
        close_round(small)
    site = with_a_split(small.sites["hospital-a"])
    (site.data / "cases.json").write_text("{}")  # status asks only whether it is there
    assert "Score the newest weights: brainfed evaluate" in todo(site)
    path = score(site, rows_of(range(9)), number=2)
    assert path is not None
    assert "evaluate" not in todo(site)
    assert f"Sign and copy the scores ({path.name})" in todo(site)
    export(site, small.medium())
    assert f"Bring {path.name} and its .sig to uni-lead." in todo(site)
    assert "Sign" not in todo(site)
    assert "brainfed report" in todo(site)


def mails(place) -> dict[tuple[str, ...], str]:
    return {mail.to: mail.text for mail in status(place).mails}


def fates(place, number: int) -> dict[str, str]:
    board = status(place).board
    assert board is not None
    return next(entry.updates for entry in board.rounds if entry.round == number)


def test_the_board_tells_what_came_of_each_site_in_each_round(tmp_path: Path) -> None:
    plan = a_plan(rounds=3, participation={"quorum_sites": 1, "floor": 1})
    small = a_federation(tmp_path, sites=("a1", "b2", "c3"), plan=plan)
    for name in ("a1", "b2"):
        train(small.sites[name])
        carry(small.sites[name], small.coordinator, small.medium(name))
    assert fates(small.coordinator, 1) == {"a1": "here", "b2": "here", "c3": "missing"}
    wishes = Wishes(without={"b2": Reason.ETHICS})
    aggregate(small.coordinator, today=TODAY, wishes=wishes)
    assert fates(small.coordinator, 1) == {
        "a1": "included",
        "b2": "excluded: ethics",
        "c3": "absent",
    }
    board = status(small.coordinator).board
    assert [(entry.round, entry.edition) for entry in board.rounds] == [
        (0, None),
        (1, 1),
        (2, None),
    ]
    told = {p.name: (p.n_included, p.n_closed, p.newest_included) for p in board.parties}
    assert told == {"a1": (1, 1, 1), "b2": (0, 1, None), "c3": (0, 1, None)}
    assert {p.key for p in board.parties} == {"counts"}


def test_an_update_that_came_too_late_can_still_be_taken_in(tmp_path: Path) -> None:
    plan = a_plan(participation={"quorum_sites": 1, "floor": 1})
    small = a_federation(tmp_path, plan=plan)
    for site in small.sites.values():
        train(site)
    carry(small.sites["hospital-a"], small.coordinator, small.medium("a"))
    aggregate(small.coordinator, today=TODAY)
    carry(small.sites["hospital-b"], small.coordinator, small.medium("b"))
    assert fates(small.coordinator, 1)["hospital-b"] == "late, here"
    assert "take it in: brainfed aggregate --again" in todo(small.coordinator)
    aggregate(small.coordinator, today=TODAY, wishes=Wishes({}, again=True))
    assert fates(small.coordinator, 1)["hospital-b"] == "included"


def test_who_owes_what_is_told_with_the_command_for_it(small: Small) -> None:
    train(small.sites["hospital-a"])
    carry(small.sites["hospital-a"], small.coordinator, small.medium())
    owed = {entry.what: (entry.by, entry.command) for entry in status(small.coordinator).board.owed}
    assert owed == {
        "the update of round 1": (("hospital-b",), "brainfed train-round"),
        "the acceptance of version 1 of the plan": (("hospital-b",), "brainfed import FOLDER"),
    }


def test_after_the_last_round_scores_are_owed_until_they_have_come(small: Small) -> None:
    for _ in range(2):
        close_round(small)
    for site in small.sites.values():
        with_a_split(site)
    what = "the scores of the weights of round 2"
    assert {e.what: e.by for e in status(small.coordinator).board.owed} == {
        what: ("hospital-a", "hospital-b")
    }
    score(small.sites["hospital-a"], rows_of(range(9)), number=2)
    carry(small.sites["hospital-a"], small.coordinator, small.medium("scores"))
    assert {e.what: e.by for e in status(small.coordinator).board.owed} == {what: ("hospital-b",)}
    assert status(small.coordinator).board.rounds[-1].scored == ("hospital-a",)
    (text,) = [text for to, text in mails(small.coordinator).items() if to == ("hospital-b",)]
    assert "brainfed evaluate" in text
    assert "train-round" not in text


def test_a_mail_names_receivers_round_file_digest_and_commands(small: Small) -> None:
    (mail,) = status(small.coordinator).mails
    (file,) = mail.files
    path = small.coordinator.round_folder(0) / file.name
    assert mail.to == ("hospital-a", "hospital-b")
    assert mail.round == 1
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    for told in (file.name, file.sha256[:12], "round 1", small.known.prefix):
        assert told in mail.text
    steps = ("brainfed import FOLDER", "brainfed train-round", "brainfed export --to FOLDER")
    assert [mail.text.index(step) for step in steps] == sorted(map(mail.text.index, steps))


def test_the_digest_in_a_mail_is_that_of_the_file_that_is_carried(small: Small) -> None:
    close_round(small)
    (mail,) = status(small.coordinator).mails
    path = small.coordinator.round_folder(1) / mail.files[0].name
    assert mail.files[0].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_sites_that_owe_different_things_get_different_mails(small: Small) -> None:
    site = small.sites["hospital-a"]
    carry(site, small.coordinator, small.medium())  # its acceptance alone
    told = mails(small.coordinator)
    assert set(told) == {("hospital-a",), ("hospital-b",)}
    assert "acceptance" in told["hospital-b",]
    assert "acceptance" not in told["hospital-a",]


def test_a_site_writes_to_the_coordinator_once_its_update_is_signed(small: Small) -> None:
    site = small.sites["hospital-a"]
    path = train(site)
    assert mails(site) == {}
    export(site, small.medium())
    (mail,) = status(site).mails
    assert mail.to == ("uni-lead",)
    assert mail.files[0].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert "the update of round 1 of hospital-a" in mail.text
    assert "brainfed import FOLDER" in mail.text


def test_before_the_start_a_mail_brings_the_enrolment_and_no_fingerprint(tmp_path: Path) -> None:
    small = an_unstarted_federation(tmp_path)
    site = small.sites["hospital-a"]
    (mail,) = status(site).mails
    assert "brainfed admit hospital-a.enrolment.json" in mail.text
    assert site.public_key().fingerprint not in mail.text
    (asked,) = status(small.coordinator).mails
    assert asked.to == ()
    assert "brainfed init site --name NAME" in asked.text


@pytest.mark.parametrize(
    ("role", "name", "told", "to"),
    [
        (Role.AUDITOR, "tuev", "brainfed archive FOLDER", "uni-lead"),
        (Role.EVALUATOR, "clinic", "waits for the global weights", "uni-lead"),
        (Role.APPROVER, "hospital-a.release", "brainfed release --approve", "hospital-a"),
    ],
)
def test_every_other_role_is_told_what_to_do_and_to_write(
    role: Role, name: str, told: str, to: str, tmp_path: Path
) -> None:
    small = an_unstarted_federation(tmp_path)
    other = a_workspace(tmp_path / name, role, name)
    assert f"brainfed admit {name}.enrolment.json" in mails(other)["the coordinator",]
    sites = [*small.sites.values(), other]
    admit(small.coordinator, [enrolment_of(s) for s in sites], confirm=say_yes)
    start(small, a_plan())
    carry(small.coordinator, other, small.medium())
    if role is Role.EVALUATOR:
        for path in other.round_folder(0).iterdir():
            path.unlink()
    assert told in mails(other)[to,]
    assert todo(other)


def test_an_evaluator_owes_the_scores_of_the_newest_weights(tmp_path: Path) -> None:
    small = an_unstarted_federation(tmp_path)
    other = a_workspace(tmp_path / "clinic", Role.EVALUATOR, "clinic")
    asking = [enrolment_of(place) for place in (*small.sites.values(), other)]
    admit(small.coordinator, asking, confirm=say_yes)
    start(small, a_plan())
    owed = {entry.what: entry.by for entry in status(small.coordinator).board.owed}
    assert owed["the scores of the weights of round 0"] == ("clinic",)
    assert "brainfed evaluate" in mails(small.coordinator)["clinic",]


def test_where_the_plan_asks_for_approval_the_site_is_led_to_the_approver(tmp_path: Path) -> None:
    small = a_federation(tmp_path, plan=a_plan(exchange={"approval": True}))
    assert "release --approve" in mails(small.coordinator)["hospital-a", "hospital-b"]
    site = small.sites["hospital-a"]
    write_dataset(site.data)
    train(site)
    assert todo(site) == (
        "Look at the release page and let the approver approve it: brainfed release, then "
        "brainfed release --approve --key FILE --who NAME"
    )
    assert "waits for your approval" in mails(site)["hospital-a.release",]


def test_a_damaged_record_is_said_and_the_rest_of_the_board_stands(small: Small) -> None:
    for _ in range(2):
        close_round(small)
    (path,) = small.coordinator.round_folder(1).glob("*.record.json")
    path.write_bytes(
        path.read_bytes().replace(b'"absent"', b'"abSent"').replace(b'"day"', b'"dag"')
    )
    found = status(small.coordinator)
    assert found.board.damaged == (path.relative_to(small.coordinator.root).as_posix(),)
    assert found.todo[0].startswith(f"{found.board.damaged[0]} is damaged")
    assert fates(small.coordinator, 2) == dict.fromkeys(small.sites, "included")


def test_a_record_by_another_key_is_none_of_the_board(small: Small) -> None:
    close_round(small)
    (path,) = small.coordinator.round_folder(1).glob("*.record.json")
    sign(path, small.sites["hospital-a"])
    assert status(small.coordinator).board.damaged


def test_an_update_whose_header_is_damaged_counts_for_nothing(small: Small) -> None:
    train(small.sites["hospital-a"])
    carry(small.sites["hospital-a"], small.coordinator, small.medium())
    (path,) = small.coordinator.round_folder(1).glob("*.update.safetensors")
    path.write_bytes(b"\0" * 100)
    assert fates(small.coordinator, 1)["hospital-a"] == "damaged"
    assert "The update of hospital-a is damaged here" in todo(small.coordinator)


@pytest.mark.parametrize("has_approval", [False, True])
def test_a_sites_whole_round_is_at_most_four_commands(has_approval: bool, tmp_path: Path) -> None:
    small = a_federation(tmp_path, plan=a_plan(exchange={"approval": has_approval}))
    (text,) = mails(small.coordinator).values()
    named = re.findall(r"brainfed [a-z-]+(?: --approve)?", text)
    assert named == [
        "brainfed import",
        "brainfed train-round",
        *(["brainfed release --approve"] if has_approval else []),
        "brainfed export",
    ]


def test_an_update_whose_approver_was_revoked_is_said_to_lack_its_approval(tmp_path: Path) -> None:
    small = an_approving_federation(tmp_path)
    for name, site in small.sites.items():
        ready(small, name)
        carry(site, small.coordinator, small.medium(name))
    assert fates(small.coordinator, 1) == dict.fromkeys(small.sites, "here")
    revoke(small.coordinator, "hospital-a.release")
    assert fates(small.coordinator, 1)["hospital-a"] == "here, not approved"
    owed = {entry.what: entry.by for entry in status(small.coordinator).board.owed}
    assert owed == {"the approval of the update of round 1": ("hospital-a",)}
    text = mails(small.coordinator)["hospital-a",]
    assert "brainfed release --approve" in text
    assert "train-round" not in text
