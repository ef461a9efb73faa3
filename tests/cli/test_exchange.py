"""`import` and `export`, and what a site is shown before it joins."""

from pathlib import Path

import pytest

from brainfed.core.sshsig import public_key
from brainfed.formats import federation
from tests.builders import a_plan
from tests.cli.typed import Typed, too_wide
from tests.federation import Small, a_federation, snapshot, train


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return a_federation(tmp_path, joined=False)


def import_words(small: Small, *more: str) -> list[object]:
    return ["import", small.coordinator.outbox, "--workspace", a_site(small).root, *more]


def a_site(small: Small):
    return small.sites["hospital-a"]


def coordinators_fingerprint(small: Small) -> str:
    return public_key(small.coordinator.private_key()).fingerprint


def test_the_first_import_shows_the_plan_and_the_fingerprint_and_asks_about_both(
    typed: Typed, small: Small
) -> None:
    answer = typed(*import_words(small), answers="y\ny\n")
    assert answer.code == 0
    assert coordinators_fingerprint(small) in answer.err
    for told in ("the whole tumour", "flair", "2 rounds", "What leaves this site", "Licence"):
        assert told in answer.err
    assert "no check of numbers proves" in " ".join(answer.err.split()).lower()
    assert too_wide(answer.err) == []
    assert federation.has_started(a_site(small))


def test_a_script_gives_the_fingerprint_and_a_yes(typed: Typed, small: Small) -> None:
    given = f"--fingerprint={coordinators_fingerprint(small)}"
    answer = typed(*import_words(small, "--yes", given, "--json"))
    assert answer.code == 0
    assert {file["verdict"] for file in answer.json["files"]} == {"accepted"}
    assert federation.has_started(a_site(small))


@pytest.mark.parametrize(
    ("given", "named"), [([], "--fingerprint"), (["--yes"], "--fingerprint"), (None, "--yes")]
)
def test_an_import_without_a_terminal_names_the_option_and_changes_nothing(
    typed: Typed, small: Small, given: list[str] | None, named: str
) -> None:
    before = snapshot(a_site(small))
    if given is None:
        given = [f"--fingerprint={coordinators_fingerprint(small)}"]
    answer = typed(*import_words(small, *given, "--json"))
    assert answer.code == 2
    assert answer.json["error"]["expected"].startswith(named)
    assert snapshot(a_site(small)) == before


@pytest.mark.parametrize("answers", ["n\n", "y\nn\n"])
def test_a_no_keeps_the_site_out(typed: Typed, small: Small, answers: str) -> None:
    answer = typed(*import_words(small), answers=answers)
    assert answer.code == 6
    assert "has not joined" in " ".join(answer.out.split())
    assert not federation.has_started(a_site(small))


def test_another_fingerprint_than_the_coordinators_keeps_the_site_out(
    typed: Typed, small: Small
) -> None:
    given = f"--fingerprint={public_key(a_site(small).private_key()).fingerprint}"
    answer = typed(*import_words(small, "--yes", given))
    assert answer.code == 6
    assert not federation.has_started(a_site(small))


def test_a_refused_file_has_its_row_and_reason_and_the_others_are_taken(
    typed: Typed, tmp_path: Path
) -> None:
    small = a_federation(tmp_path)
    for site in small.sites.values():
        train(site)
        typed("export", "--to", small.medium(), "--workspace", site.root)
    damaged = next(small.medium().glob("*hospital-a.update.safetensors"))
    damaged.write_bytes(damaged.read_bytes()[:-4])
    words = ("import", small.medium(), "--workspace", small.coordinator.root)
    answer = typed(*words)
    assert answer.code == 6
    assert "refused" in answer.out
    assert "accepted" in answer.out
    assert "ask the sender" in " ".join(answer.out.split())
    assert "\x1b" not in answer.out
    assert too_wide(answer.out) == []
    again = typed(*words, "--json")
    rows = {Path(file["path"]).name: file for file in again.json["files"]}
    assert again.code == 6
    assert rows[damaged.name]["error"]["kind"] == "SignatureError"


def test_a_folder_without_files_of_ours_is_no_error(
    typed: Typed, small: Small, tmp_path: Path
) -> None:
    (small.medium() / "holiday.jpg").write_bytes(b"\xff\xd8 not ours")
    answer = typed("import", small.medium(), "--workspace", small.coordinator.root)
    assert answer.code == 0
    assert "1 other file left alone" in answer.out


def test_a_medium_that_is_not_there_is_a_usage_error(typed: Typed, small: Small) -> None:
    answer = typed("import", small.root / "nowhere", "--workspace", small.coordinator.root)
    assert answer.code == 2
    assert "mounted" in answer.err


def test_export_lists_what_was_copied_and_says_that_it_is_safe(typed: Typed, small: Small) -> None:
    words = ("export", "--workspace", small.coordinator.root)
    assert "In the outbox" in typed(*words).out
    answer = typed(*words, "--to", small.medium())
    assert answer.code == 0
    assert "safe to remove" in answer.out
    assert too_wide(answer.out) == []
    done = typed(*words, "--to", small.medium(), "--json").json
    listed = {file["name"] for file in done["copied"]} | {Path(done["packing_list"]).name}
    assert listed == {path.name for path in small.medium().iterdir()}


def test_export_to_a_folder_that_is_not_there_is_refused(typed: Typed, small: Small) -> None:
    answer = typed("export", "--to", small.root / "nowhere", "--workspace", small.coordinator.root)
    assert answer.code == 8


def test_unsigned_prints_a_line_for_each_file_that_signs_it(typed: Typed, small: Small) -> None:
    typed(*import_words(small, "--yes", f"--fingerprint={coordinators_fingerprint(small)}"))
    train(a_site(small))
    words = ("export", "--unsigned", "--workspace", a_site(small).root)
    answer = typed(*words)
    assert answer.code == 0
    lines = [line.strip() for line in answer.out.splitlines() if "ssh-keygen" in line]
    done = typed(*words, "--json").json
    assert len(done["unsigned"]) == 2
    for path in done["unsigned"]:
        assert f"ssh-keygen -Y sign -n brainfed -f {done['public_key']} {path}" in lines
        assert Path(path).is_file()
        assert not Path(f"{path}.sig").exists()
    assert "hashalg=sha256" in answer.out


def test_an_amended_plan_is_shown_key_by_key_and_asked_about(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import io
    import sys

    from brainfed.cli.console import progress
    from brainfed.cli.exchange import _agree
    from brainfed.formats.amendment import changes
    from brainfed.steps.accept import JoinRequest

    old, new = a_plan(), a_plan(rounds=9)
    request = JoinRequest(
        federation="0" * 64,
        purpose="real",
        coordinator="uni-lead",
        fingerprint="SHA256:x",
        site="hospital-a",
        plan=new,
        plan_digest="1" * 64,
        version=2,
        from_round=3,
        changes=changes(old, new),
    )

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for typed_in, expected in (("y\n", True), ("n\n", False)):
        monkeypatch.setattr(sys, "stdin", Terminal(typed_in))
        with progress() as bar:
            assert _agree(request, bar, yes=False, fingerprints=None) is expected
        said = capsys.readouterr().err
        for told in ("version 2", "round 3", "rounds", "2", "9", "1" * 64):
            assert told in said
