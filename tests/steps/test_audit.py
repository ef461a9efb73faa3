"""An audit notices every single change of every file, and says which file it is about."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from brainfed.errors import UsageError
from brainfed.formats import workspace
from brainfed.formats.roster import Role
from brainfed.steps import audit as audit_module
from brainfed.steps.admit import admit, revoke
from brainfed.steps.aggregate import aggregate
from brainfed.steps.archive import archive
from brainfed.steps.audit import Audited, Verdict, audit
from brainfed.steps.findings import FindingKind
from brainfed.steps.rederive import Outcome
from brainfed.steps.rotate import rotate
from tests import audited
from tests.audited import (
    LEAD,
    A,
    Archive,
    B,
    C,
    an_archive,
    edit_json,
    edit_weights,
    name_of,
    write,
)
from tests.federation import (
    TODAY,
    Small,
    a_federation,
    a_waiting_federation,
    a_workspace,
    carry,
    close_round,
    enrolment_of,
    say_yes,
    train,
)
from tests.golden import make

FILES = an_archive()
SIGNED = audited.signed_names()
DERIVED = ["federation/roster", "federation/revoked", "federation/plan.toml"]
LAST = (".scores.json", ".approval.json", ".final.json", ".erasure.json")
NAMED_BY_NOTHING = {
    # The first roster stands inside start.json.
    "federation/roster.v0001.json",
    # Who was in no round under a version of the plan need not have accepted it.
    "federation/clinic-e.plan.v0001.acceptance.json",
    "federation/clinic-e.plan.v0002.acceptance.json",
    "federation/hospital-c.plan.v0001.acceptance.json",
    # The end of a story can be cut off; so archives of two parties are worth more than one.
    *(name for name in SIGNED if name.endswith(LAST)),
}


def audit_of(files: Archive, folder: Path) -> Audited:
    return audit([write(files, folder)])


def names(done: Audited, text: str) -> bool:
    """Whether a finding names a file: by its path, or in its sentence."""
    return any(text in str(f.file) or text in f.sentence for f in done.findings)


# --- nothing changed ------------------------------------------------------------------------------


def test_an_archive_is_re_derived_to_the_bit(tmp_path: Path) -> None:
    done = audit_of(FILES, tmp_path)

    assert done.findings == ()
    assert done.verdict is Verdict.REDERIVED
    assert [row.outcome for row in done.rounds] == [Outcome.GIVEN, *[Outcome.REDERIVED] * 3]
    assert [row.included for row in done.rounds] == [(), (A, B), (A, C), (A, C)]
    assert (done.rounds[2].excluded, done.rounds[1].absent) == ((B,), (C,))
    assert done.federation == make.sha256(FILES["federation/start.json"])
    assert "trained honestly" in done.sentence
    assert len(done.fingerprints) == 2  # the coordinator's lost key and its new one
    assert (done.n_files, done.n_foreign) == (len(SIGNED), 0)


def test_an_audit_writes_nothing(tmp_path: Path) -> None:
    write(FILES, tmp_path)

    def times() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}

    before = times()
    audit([tmp_path])
    assert times() == before


def test_an_audit_needs_no_torch_and_no_workspace(tmp_path: Path) -> None:
    write(FILES, tmp_path / "archive")
    program = (
        "import sys; from brainfed.cli.app import run; code = run(['audit', 'archive', '--json']);"
        "print('torch' in sys.modules, file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, "False")
    assert json.loads(done.stdout)["verdict"] == "re-derived"


def test_files_are_known_by_what_they_hold_not_by_name(tmp_path: Path) -> None:
    for number, name in enumerate(SIGNED):
        path = tmp_path / f"{number}.bin"
        path.write_bytes(FILES[name])
        path.with_name(f"{path.name}.sig").write_bytes(FILES[f"{name}.sig"])
    (tmp_path / "holiday.jpg").write_bytes(b"\xff\xd8 not ours")
    (tmp_path / "other.json").write_text('{"kind":"other"}')
    (tmp_path / "program.tar.sig").write_bytes(b"a signature of another kind")
    (tmp_path / "program.tar").write_bytes(b"not ours")

    done = audit([tmp_path])

    assert done.verdict is Verdict.REDERIVED
    assert done.n_foreign == 4


def test_the_same_files_in_two_folders_are_one_story(tmp_path: Path) -> None:
    done = audit([write(FILES, tmp_path / "one"), write(FILES, tmp_path / "two"), tmp_path / "one"])
    assert done.verdict is Verdict.REDERIVED
    assert len(done.rounds) == 4


# --- the test of tests: every file, every change --------------------------------------------------


def flipped(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1 << (at % 8)
    return bytes(changed)


@pytest.mark.parametrize("name", FILES)
def test_one_bit_of_any_file_is_noticed_and_the_file_named(name: str, tmp_path: Path) -> None:
    write(FILES, tmp_path)
    data = FILES[name]
    for at in {9, len(data) // 2, len(data) - 1}:
        (tmp_path / name).write_bytes(flipped(data, at))
        done = audit([tmp_path])
        assert done.verdict is Verdict.DIVERGES, at
        assert names(done, name.removesuffix(".sig")), (at, done.findings)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_was_taken_away_is_noticed(name: str, tmp_path: Path) -> None:
    write({n: data for n, data in FILES.items() if n != name}, tmp_path)
    done = audit([tmp_path])
    assert done.verdict is Verdict.INCOMPLETE
    assert names(done, name.removesuffix(".sig"))
    kinds = {f.kind for f in done.findings if str(f.file) == str(tmp_path / name[:-4])}
    assert kinds == ({FindingKind.UNSIGNED} if name.endswith(".sig") else kinds)


@pytest.mark.parametrize("name", SIGNED)
def test_a_file_that_was_taken_away_with_its_signature_is_noticed(
    name: str, tmp_path: Path
) -> None:
    write({n: d for n, d in FILES.items() if n not in {name, f"{name}.sig"}}, tmp_path)
    done = audit([tmp_path])
    assert (done.verdict is Verdict.REDERIVED) == (name in NAMED_BY_NOTHING)
    assert bool(done.findings) == (name not in NAMED_BY_NOTHING)


KIND_OF = {name: name.removesuffix(".json").rpartition(".")[2] for name in SIGNED}
KIND_OF |= {n: n.split(".")[-2] for n in SIGNED if n.endswith(".safetensors")}
KIND_OF |= {n: "roster" for n in SIGNED if n.startswith("federation/roster")}


def other_of_its_kind(name: str) -> str | None:
    same = [other for other in SIGNED if KIND_OF[other] == KIND_OF[name]]
    return None if len(same) < 2 else same[same.index(name) - 1]


@pytest.mark.parametrize("with_signatures", [True, False])
@pytest.mark.parametrize("name", [name for name in SIGNED if other_of_its_kind(name)])
def test_two_files_of_a_kind_that_were_swapped_are_both_named(
    name: str, with_signatures: bool, tmp_path: Path
) -> None:
    other = other_of_its_kind(name)
    files = an_archive()
    files[name], files[other] = FILES[other], FILES[name]
    if with_signatures:
        files[f"{name}.sig"], files[f"{other}.sig"] = FILES[f"{other}.sig"], FILES[f"{name}.sig"]
    done = audit_of(files, tmp_path)
    assert done.verdict is Verdict.DIVERGES
    assert names(done, name)
    assert names(done, other)


@pytest.mark.parametrize("name", [n for n in SIGNED if "/r0002/" in n or "/r0003/" in n])
def test_a_file_that_the_round_before_replaced_is_noticed(name: str, tmp_path: Path) -> None:
    before = f"{int(name[8:12]) - 1:04d}"
    earlier = name.replace(f"r{name[8:12]}", f"r{before}")
    if earlier not in FILES:
        earlier = next(n for n in SIGNED if f"/r{before}/" in n)
    files = an_archive() | {name: FILES[earlier], f"{name}.sig": FILES[f"{earlier}.sig"]}
    done = audit_of(files, tmp_path)
    assert done.verdict is Verdict.DIVERGES
    assert names(done, name)


@pytest.mark.parametrize("name", SIGNED)
def test_a_file_that_another_key_signed_is_named(name: str, tmp_path: Path) -> None:
    write(FILES, tmp_path)
    signer = audited.key_of(name, FILES)
    # A roster with a new coordinator key may be signed by the old one as by the recovery key.
    may = {signer, LEAD} if name == "federation/roster.v0004.json" else {signer}
    for key in {B if signer != B else C, LEAD, "a stranger"} - may:
        files = an_archive()
        audited.sign(files, name, key)
        (tmp_path / f"{name}.sig").write_bytes(files[f"{name}.sig"])
        done = audit([tmp_path])
        assert done.verdict is Verdict.DIVERGES, key
        signers = {f.file for f in done.findings if f.kind is FindingKind.SIGNER}
        assert tmp_path / name in signers, (key, done.findings)


@pytest.mark.parametrize(
    ("part", "key"),
    [("r0003.hospital-a.update", A), ("r0003.uni-lead.global", LEAD), ("r0003.uni-lead.rec", LEAD)],
)
def test_a_key_of_before_counts_no_more(part: str, key: str, tmp_path: Path) -> None:
    files = an_archive()
    name = name_of(files, part)
    audited.sign(files, name, key)
    done = audit_of(files, tmp_path)
    assert done.verdict is Verdict.DIVERGES
    assert names(done, name)


@pytest.mark.parametrize("name", DERIVED)
def test_an_unsigned_copy_that_was_edited_is_named(name: str, tmp_path: Path) -> None:
    done = audit_of(an_archive() | {name: FILES[name] + b"# a word more\n"}, tmp_path)
    (finding,) = done.findings
    assert (finding.kind, finding.file) == (FindingKind.DERIVED, tmp_path / name)


# --- a coordinator that signs what is not so ------------------------------------------------------


def sign_global(files: Archive, round_number: int, **change: Callable[..., object]) -> str:
    """Another global of a round, its record naming it, signed by the coordinator."""
    of_round = f".r{round_number:04d}."
    name = name_of(files, of_round, ".global.")
    digest = edit_weights(files, name, **change)
    record = name_of(files, of_round, ".record.")
    edit_json(files, record, lambda content: content.update(global_digest=digest))
    return name


def test_the_first_value_that_is_not_the_mean_is_located(tmp_path: Path) -> None:
    files = an_archive()

    def change(values: np.ndarray) -> None:
        values[2 + 5] = np.nextafter(values[2 + 5], np.float32(1))

    name = sign_global(files, 3, values=change)
    done = audit_of(files, tmp_path)

    (found,) = (f for f in done.findings if f.kind is FindingKind.ARITHMETIC)
    assert (found.file, found.round) == (tmp_path / name, 3)
    # decoder.level1.conv1.bias has two values; then comes a weight of shape (2, 6, 3, 3).
    assert "decoder.level1.conv1.weight, index [0, 0, 1, 2]" in found.sentence
    assert done.rounds[-1].outcome is Outcome.DIFFERS
    assert [row.outcome for row in done.rounds[1:3]] == [Outcome.REDERIVED] * 2


def test_zero_and_minus_zero_are_not_the_same_bits(tmp_path: Path) -> None:
    _, values = audited.read_weights(FILES[name_of(FILES, "r0001", ".global.")])
    _, first = audited.read_weights(FILES[name_of(FILES, "r0001.hospital-a")])
    files = an_archive()
    for site in (A, B):
        edit_weights(files, name_of(files, f"r0001.{site}"), values=lambda v: v.fill(0))
    assert first.any()
    assert values.any()
    sign_global(files, 1, values=lambda v: v.fill(-0.0))

    def rename(content: dict) -> None:
        for entry in content["inputs"][:2]:
            entry["digest"] = make.sha256(files[name_of(files, f"r0001.{entry['sender']}")])

    edit_json(files, name_of(files, "r0001", ".record."), rename)
    files = {n: d for n, d in files.items() if not n.startswith(("rounds/r0002", "rounds/r0003"))}
    done = audit_of(files, tmp_path)
    (found,) = (f for f in done.findings if f.kind is FindingKind.ARITHMETIC)
    assert "holds -0.0, computed is 0.0" in found.sentence


def set_weight(content: dict) -> None:
    content["inputs"][0]["weight"] += 1


def leave_out_absent(content: dict) -> None:
    content["inputs"] = [e for e in content["inputs"] if e["status"] != "absent"]


def add_stranger(content: dict) -> None:
    content["inputs"].append(content["inputs"][-1] | {"sender": "hospital-z", "digest": None})
    content["inputs"][-1] |= {"status": "absent", "weight": 0, "reason": None}


def exclude_all_but_one(content: dict) -> None:
    content["inputs"][1] |= {"status": "excluded", "weight": 0, "reason": "late"}


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (set_weight, "weight of hospital-a in the record is 13, but from its update follows 12"),
        (leave_out_absent, "nothing of the active site hospital-c"),
        (add_stranger, "hospital-z, which is no site"),
        (exclude_all_but_one, "fewer than the quorum"),
        (lambda c: c.update(weights_by="slices"), "another rule than the plan's"),
        (lambda c: c.update(next_site=C), "whose turn is next"),
    ],
)
def test_a_record_that_is_not_what_plan_roster_and_updates_make_it_is_named(
    edit: Callable[[dict], None], words: str, tmp_path: Path
) -> None:
    files = an_archive()
    name = name_of(files, "r0001", ".record.")
    edit_json(files, name, edit)
    done = audit_of(files, tmp_path)
    (found,) = (f for f in done.findings if words in f.sentence)
    assert (found.kind, found.file) == (FindingKind.RECORD, tmp_path / name)


def test_global_weights_whose_manifest_is_not_that_of_the_record_are_named(tmp_path: Path) -> None:
    files = an_archive()
    sign_global(files, 2, manifest=lambda content: content.update(roster_version=2))
    done = audit_of(files, tmp_path)
    assert any("differ in roster_version" in f.sentence for f in done.findings)


def test_an_amendment_must_be_signed_by_the_coordinator_of_its_roster(tmp_path: Path) -> None:
    files = an_archive()
    name = name_of(files, ".amendment.")
    content = json.loads(files[name]) | {"roster_version": 4}
    files[name] = make.canonical(content)  # of the new coordinator key's days, by the old key
    audited.sign(files, name, LEAD)
    done = audit_of(files, tmp_path)
    assert any(f.kind is FindingKind.SIGNER and f.file == tmp_path / name for f in done.findings)


def under_roster(files: Archive, version: int, *parts: str) -> None:
    """Let weight files name another version of the roster."""
    for part in parts:
        edit_weights(
            files, name_of(files, part), manifest=lambda c: c.update(roster_version=version)
        )


@pytest.mark.parametrize(
    ("round_number", "version", "is_global_named"),
    [
        pytest.param(2, 1, False, id="older than an update's"),
        pytest.param(3, 2, True, id="older than the round's before"),
    ],
)
def test_a_round_is_under_no_older_roster_than_what_came_before(
    round_number: int, version: int, is_global_named: bool, tmp_path: Path
) -> None:
    files = an_archive()
    target, record = (
        name_of(files, f"r000{round_number}.", f".{k}.") for k in ("global", "record")
    )
    updates = {site: f"r000{round_number}.{site}.update." for site in (A, C)}
    under_roster(files, version, target)
    if is_global_named:  # so that no update is it that knows more
        under_roster(files, version, *updates.values())

    def rename(content: dict) -> None:
        content |= {"roster_version": version, "global_digest": make.sha256(files[target])}
        for entry in content["inputs"]:
            if entry["sender"] in updates:
                entry["digest"] = make.sha256(files[name_of(files, updates[entry["sender"]])])

    edit_json(files, record, rename)
    done = audit_of(files, tmp_path)

    words = f"under version {version} of the roster, but a file that came before"
    found = {f.file: f.kind for f in done.findings if words in f.sentence}
    named = [target, record] if is_global_named else [record]
    assert found == {tmp_path / name: FindingKind.RECORD for name in named}


def test_a_roster_after_the_start_must_name_the_federation(tmp_path: Path) -> None:
    files = an_archive()
    audited.retell_rosters(files, lambda content: content.update(federation=None))
    done = audit_of(files, tmp_path)
    named = {f.file for f in done.findings if f.kind is FindingKind.HISTORY}
    assert named == {tmp_path / f"federation/roster.v000{version}.json" for version in (2, 3, 4)}


@pytest.mark.parametrize(
    ("part", "key"),
    [
        (".final.", LEAD),
        (f"{A}.scores.", A),
        (".approval.", f"{A}.release"),
    ],
)
def test_what_a_revoked_key_signed_under_an_old_roster_does_not_count(
    part: str, key: str, tmp_path: Path
) -> None:
    files = an_archive()
    name = name_of(files, part)
    edit_json(files, name, lambda content: content.update(roster_version=1))
    audited.sign(files, name, key)
    if key == f"{A}.release":  # active for ever in the golden files
        end = {"status": "revoked", "revoked_since": 3}

        def close(content: dict) -> None:
            if content["version"] == 4:
                next(p for p in content["principals"] if p["name"] == key).update(end)

        audited.retell_rosters(files, close)
    done = audit_of(files, tmp_path)
    (found,) = (f for f in done.findings if f.kind is FindingKind.SIGNER)
    assert found.file == tmp_path / name
    assert "revoked since round 3" in found.sentence


# --- an honest federation whose parties know less than the coordinator ----------------------------


def audit_of_archive(small: Small) -> Audited:
    aggregate(small.coordinator, today=TODAY)
    archive(small.coordinator, small.root / "archive")
    return audit([small.root / "archive"])


def with_a_new_key(small: Small, name: str) -> None:
    """A site makes a new key, which the coordinator admits and the site then sees."""
    rotate(small.sites[name])
    small.sites[name] = workspace.find(small.sites[name].root)
    admit(small.coordinator, [enrolment_of(small.sites[name])], confirm=say_yes)
    carry(small.coordinator, small.sites[name], small.medium("new-key"))


def test_a_site_that_was_admitted_after_the_start_accepts_under_the_starts_roster(
    tmp_path: Path,
) -> None:
    small = a_federation(tmp_path)
    late = a_workspace(tmp_path / C, Role.SITE, C)
    admit(small.coordinator, [enrolment_of(late)], confirm=say_yes)
    small.sites[C] = late
    for site in small.sites.values():
        carry(small.coordinator, site, small.medium("newest"))
        train(site)
        carry(site, small.coordinator, small.medium(f"from-{site.name}"))
    done = audit_of_archive(small)
    assert done.findings == ()
    assert done.rounds[-1].included == (A, B, C)


def test_a_key_that_was_rotated_before_the_first_export_counts(tmp_path: Path) -> None:
    small = a_federation(tmp_path)
    with_a_new_key(small, B)
    for site in small.sites.values():
        train(site)
        carry(site, small.coordinator, small.medium(f"from-{site.name}"))
    assert audit_of_archive(small).findings == ()


def test_an_update_that_was_signed_again_after_a_mistaken_revocation_counts(
    tmp_path: Path,
) -> None:
    small = a_waiting_federation(tmp_path)
    revoke(small.coordinator, B)
    carry(small.coordinator, small.sites[B], small.medium("revoked"))
    with_a_new_key(small, B)
    carry(small.sites[B], small.coordinator, small.medium("again"))
    done = audit_of_archive(small)
    assert done.findings == ()
    assert done.rounds[-1].included == (A, B)


# --- editions -------------------------------------------------------------------------------------


def close_again(files: Archive, *, supersedes: str | None = None) -> None:
    """Round 3 a second time, without hospital-a: below the quorum of 2, which is named as well."""
    of_round = ".r0003."
    record = name_of(files, of_round, ".record.")
    content = json.loads(files[record])
    target = name_of(files, of_round, ".global.")
    manifest, _ = audited.read_weights(files[target])
    _, values = audited.read_weights(files[name_of(files, f"r0003.{C}.update")])
    data = make.weight_file(manifest | {"edition": 2}, values)
    again = target.replace(of_round, ".r0003.e2.")
    digest = make.put(files, again, data, f"{LEAD} again")
    content |= {"edition": 2, "global_digest": digest}
    content["supersedes"] = supersedes or make.sha256(files[record])
    content["inputs"][0] |= {"status": "excluded", "weight": 0, "reason": "withdrew"}
    again = record.replace(of_round, ".r0003.e2.")
    make.put(files, again, make.canonical(content), f"{LEAD} again")


def without_final(files: Archive) -> Archive:
    return {n: d for n, d in files.items() if ".final." not in n}


def test_a_federation_has_one_final(tmp_path: Path) -> None:
    files = an_archive()
    content = json.loads(files[name_of(files, ".final.")]) | {"day": "2026-12-01"}
    make.put(files, "rounds/r0003/second.final.json", make.canonical(content), f"{LEAD} again")
    done = audit_of(files, tmp_path)
    assert done.verdict is Verdict.DIVERGES
    assert any("Two" in f.sentence and "the final" in f.sentence for f in done.findings)


def test_every_edition_of_a_round_is_re_derived(tmp_path: Path) -> None:
    files = an_archive()
    close_again(files)
    done = audit_of(files, tmp_path)
    assert [(r.round, r.edition, r.outcome) for r in done.rounds[3:]] == [
        (3, 1, Outcome.REDERIVED),
        (3, 2, Outcome.REDERIVED),
    ]
    (finding,) = done.findings
    assert "fewer than the quorum" in finding.sentence


def test_an_edition_names_the_record_that_it_supersedes(tmp_path: Path) -> None:
    files = an_archive()
    close_again(files, supersedes="0" * 64)
    done = audit_of(files, tmp_path)
    assert any("supersedes another one" in f.sentence for f in done.findings)


def test_a_first_edition_that_was_taken_away_is_missed(tmp_path: Path) -> None:
    files = an_archive()
    close_again(files)
    gone = (name_of(files, ".r0003.uni-lead.global."), name_of(files, ".r0003.uni-lead.record."))
    files = {n: d for n, d in files.items() if not n.startswith(gone)}
    done = audit_of(without_final(files), tmp_path)
    assert any("Edition 1 of round 3 is missing" in f.sentence for f in done.findings)


# --- two stories ----------------------------------------------------------------------------------


def of_site(files: Archive, site: str) -> Archive:
    """What a site has: all but the updates of the others and what only the coordinator keeps."""
    return {
        name: data
        for name, data in files.items()
        if not (".update." in name and site not in name)
        and "enrolment" not in name
        and not ("acceptance" in name and site not in name)
    }


def told_otherwise() -> Archive:
    files = an_archive()
    audited.retell(files, 1, lambda values: values.__setitem__(0, values[0] + 1))
    return {n: d for n, d in files.items() if "v0002.amendment" not in n and "v0002.acc" not in n}


def wrong(done: Audited) -> list:
    return [finding for finding in done.findings if finding.kind.is_wrong]


def test_a_site_alone_is_incomplete_and_each_missing_file_is_named(tmp_path: Path) -> None:
    done = audit_of(of_site(FILES, A), tmp_path)
    assert done.verdict is Verdict.INCOMPLETE
    for who, number in ((B, 1), (B, 2), (C, 2), (C, 3)):
        words = f"update of {who} for round {number}"
        assert sum(words in f.sentence for f in done.findings) == 1
    assert {row.outcome for row in done.rounds} == {Outcome.GIVEN, Outcome.IMPOSSIBLE}


def test_the_folders_of_all_parties_together_are_complete(tmp_path: Path) -> None:
    folders = [write(of_site(FILES, site), tmp_path / site) for site in (A, B, C)]
    enrolments = write(audited.only(FILES, "enrolment"), tmp_path / "stick")
    assert audit([*folders, enrolments]).verdict is Verdict.REDERIVED


def test_two_globals_of_one_round_are_an_alarm_that_names_both(tmp_path: Path) -> None:
    a = write(of_site(FILES, A), tmp_path / "a")
    b = write(of_site(told_otherwise(), B), tmp_path / "b")
    # The second story is about a value that the first round's updates don't give: alone, and
    # without the other's updates, nothing shows it.
    (tmp_path / "b" / "federation" / "plan.toml").write_text(make.PLAN)
    assert wrong(audit([b])) == []
    assert wrong(audit([a])) == []

    done = audit([a, b])

    assert done.verdict is Verdict.DIVERGES
    name = name_of(FILES, "r0001", ".global.")
    alarms = [f for f in done.findings if f.kind is FindingKind.TWO_STORIES]
    (found,) = (f for f in alarms if f.sentence.startswith("Two stories about the global"))
    assert str(a / name) in found.sentence
    assert str(b / name) in found.sentence
    assert any(f.sentence.startswith("Two stories about the record") for f in alarms)


def test_two_stories_are_found_by_an_updates_parent_alone(tmp_path: Path) -> None:
    a = write(of_site(FILES, A), tmp_path / "a")
    other = told_otherwise()
    digest = make.sha256(other[name_of(other, "r0001", ".global.")])
    update = name_of(FILES, f"r0002.{B}.update")
    files = an_archive()
    edit_weights(files, update, manifest=lambda content: content.update(parent=digest))
    kept = {n: d for n, d in of_site(files, B).items() if n.startswith("rounds/") and B in n}
    b = write(audited.only(files, "start.json") | kept, tmp_path / "b")

    done = audit([a, b])

    # Here hospital-b's update lies in no record of a's story; the record names another digest.
    alarms = [f for f in done.findings if f.kind is FindingKind.TWO_STORIES]
    assert any(f.file == b / update or str(b / update) in f.sentence for f in alarms)
    (found,) = (f for f in alarms if f.file == b / update)
    assert digest[:16] in found.sentence
    assert str(a / name_of(FILES, "r0001", ".global.")) in found.sentence


@pytest.mark.parametrize(
    ("part", "edit"),
    [
        ("federation/roster.v0002.json", lambda c: c["principals"][0].update(n_patients=1)),
        ("plan.v0002.amendment", lambda c: c.update(from_round=3)),
        ("r0002.uni-lead.record", lambda c: c.update(day="2026-11-24")),
    ],
)
def test_two_signed_files_of_one_place_are_an_alarm_that_names_both(
    part: str, edit: Callable[[dict], object], tmp_path: Path
) -> None:
    name = name_of(FILES, part)
    files = an_archive()
    edit_json(files, name, edit)
    stick = audited.only(files, name)
    done = audit([write(FILES, tmp_path / "archive"), write(stick, tmp_path / "stick")])
    told = [f for f in done.findings if f.sentence.startswith("Two stories about")]
    assert any(
        str(tmp_path / "archive" / name) in f.sentence
        and str(tmp_path / "stick" / name) in f.sentence
        for f in told
    )


def test_two_updates_of_one_site_are_an_alarm(tmp_path: Path) -> None:
    name = name_of(FILES, f"r0002.{A}.update")
    files = an_archive()
    edit_weights(files, name, values=lambda values: values.fill(1))
    write(FILES, tmp_path / "archive")
    write(audited.only(files, name), tmp_path / "stick")
    done = audit([tmp_path / "archive", tmp_path / "stick"])
    (found,) = wrong(done)
    assert found.sentence.startswith(f"Two stories about the update of {A}, round 2")
    assert done.rounds[2].outcome is Outcome.REDERIVED


def test_a_record_that_names_another_update_than_the_one_that_was_sent_is_an_alarm(
    tmp_path: Path,
) -> None:
    name = name_of(FILES, f"r0002.{A}.update")
    files = an_archive()
    edit_weights(files, name, values=lambda values: values.fill(1))
    done = audit_of(of_site(files, A), tmp_path)
    assert any(
        f.kind is FindingKind.TWO_STORIES and str(tmp_path / name) in f.sentence
        for f in done.findings
    )


# --- folders --------------------------------------------------------------------------------------


def another_federation(folder: Path) -> Path:
    files = an_archive()
    for name in ("federation/start.json",):
        edit_json(files, name, lambda content: content.update(nonce="0" * 32))
    return write(audited.only(files, "start.json"), folder)


def test_two_federations_are_told_apart_and_one_can_be_chosen(tmp_path: Path) -> None:
    archive = write(FILES, tmp_path / "archive")
    other = another_federation(tmp_path / "other")
    with pytest.raises(UsageError) as raised:
        audit([archive, other])
    digest = make.sha256(FILES["federation/start.json"])
    assert digest[:16] in str(raised.value.found)
    assert str(other) in str(raised.value.found)

    done = audit([archive, other], wanted=digest[:8])
    assert done.verdict is Verdict.REDERIVED
    assert done.n_foreign == 1
    with pytest.raises(UsageError):
        audit([archive], wanted="0000")


@pytest.mark.parametrize("what", ["missing", "empty"])
def test_a_folder_without_a_federation_is_a_usage_error(what: str, tmp_path: Path) -> None:
    if what == "empty":
        (tmp_path / what).mkdir()
    with pytest.raises(UsageError):
        audit([tmp_path / what])


def test_local_things_of_a_workspace_are_not_the_audits_business(tmp_path: Path) -> None:
    write(FILES, tmp_path)
    local = {
        "brainfed.toml": b'role = "site"\nname = "hospital-a"\nkey = "key/id_ed25519"\n',
        "ledger.jsonl": b"{}\n",
        "key/id_ed25519": b"secret",
        "data/cases.json": b'{"kind":"record"}',
        "reports/table.json": b'{"kind":"roster"}',
        "rounds/r0003/training.jsonl": b'{"loss":1}\n{"loss":2}\n',
        "inbox/half.json": FILES["federation/start.json"][:-5],
    }
    unsigned = name_of(FILES, f"r0003.{A}.update")
    manifest, values = audited.read_weights(FILES[unsigned])
    open_round = manifest | {"round": 4, "parent": "0" * 64}
    local[unsigned.replace("r0003", "r0004")] = make.weight_file(open_round, values)
    write(local, tmp_path)
    assert audit([tmp_path]).findings == ()

    # In an archive nobody works: there, the same update is one that nobody signed.
    (tmp_path / "brainfed.toml").unlink()
    found = {f.file for f in audit([tmp_path]).findings if f.kind is FindingKind.UNSIGNED}
    assert tmp_path / unsigned.replace("r0003", "r0004") in found


def test_leftovers_links_and_encrypted_files_are_passed_over(tmp_path: Path) -> None:
    write(FILES, tmp_path)
    (tmp_path / ".tmp-1234-roster.v0009.json").write_bytes(FILES["federation/roster.v0001.json"])
    (tmp_path / "endless.json").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe.json")
    name = name_of(FILES, f"r0003.{A}.update")
    stick = tmp_path / "stick"
    stick.mkdir()
    (stick / "u.safetensors.age").write_bytes(b"age-encryption.org/v1 ...")
    (stick / "u.safetensors.sig").write_bytes(FILES[f"{name}.sig"])
    assert audit([tmp_path]).verdict is Verdict.REDERIVED


def test_progress_is_told_of_every_round(tmp_path: Path) -> None:
    told = []
    audit([write(FILES, tmp_path)], progress=lambda *words: told.append(words[:3]))
    assert told == [("audit", done, 4) for done in (1, 2, 3, 4)]


def test_names_that_are_as_long_as_the_disk_allows_are_read(tmp_path: Path) -> None:
    write(FILES, tmp_path)
    (tmp_path / ("a" * 253)).write_bytes(b"not ours, and no .sig has room beside it")
    assert audit([tmp_path]).findings == ()
    (tmp_path / ("b" * 253)).write_bytes(FILES["federation/roster.v0002.json"])
    (finding,) = audit([tmp_path]).findings
    assert (finding.kind, finding.file) == (FindingKind.UNSIGNED, tmp_path / ("b" * 253))


def test_an_unsigned_copy_of_any_size_is_held_against_the_right_one(tmp_path: Path) -> None:
    write(FILES, tmp_path)
    os.truncate(tmp_path / "federation" / "roster", 2**40)  # all of it a hole
    (finding,) = audit([tmp_path]).findings
    assert (finding.kind, finding.file) == (FindingKind.DERIVED, tmp_path / "federation" / "roster")


# --- the ledger of a workspace --------------------------------------------------------------------


def test_a_ledger_whose_end_was_cut_off_is_noted_but_is_no_evidence(tmp_path: Path) -> None:
    small = a_federation(tmp_path)
    close_round(small)
    place = small.coordinator
    assert audit([place.root]).notes == ()
    lines = place.ledger_path.read_bytes().splitlines(keepends=True)
    place.ledger_path.write_bytes(b"".join(lines[:-2]))
    done = audit([place.root])
    assert done.verdict is Verdict.REDERIVED
    assert len(done.notes) == 2
    assert any("global.safetensors" in note for note in done.notes)
    place.ledger_path.write_bytes(b"".join(lines[1:]))
    (note,) = audit([place.root]).notes
    assert "doesn't follow" in note


def digest_is_a_list(path: Path) -> None:
    line = {"at": "x", "digest": [], "event": "made", "previous": "0" * 64}
    path.write_bytes(make.canonical(line) + b"\n")


def endless(path: Path) -> None:
    path.touch()
    os.truncate(path, audit_module.MAX_LEDGER_BYTES + 1)


@pytest.mark.parametrize(
    "put", [Path.mkdir, os.mkfifo, digest_is_a_list, endless, lambda p: p.symlink_to("/dev/zero")]
)
def test_whatever_lies_in_place_of_a_ledger_is_noted(
    put: Callable[[Path], object], tmp_path: Path
) -> None:
    write(FILES, tmp_path)
    (tmp_path / "brainfed.toml").write_text('role = "site"\nname = "x"\nkey = "k"\n')
    put(tmp_path / "ledger.jsonl")
    done = audit([tmp_path])
    assert done.verdict is Verdict.REDERIVED
    (note,) = done.notes
    assert note.startswith(str(tmp_path / "ledger.jsonl"))
