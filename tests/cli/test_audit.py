"""What an auditor reads on the screen."""

from pathlib import Path

import pytest

from tests.audited import LEAD, A, B, an_archive, name_of, write
from tests.cli.typed import Typed, too_wide
from tests.golden import make

FILES = an_archive()
DIGEST = make.sha256(FILES["federation/start.json"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(FILES, tmp_path / "archive")


def test_an_audit_ends_with_a_table_and_a_verdict(typed: Typed, folder: Path) -> None:
    done = typed("audit", folder)
    assert done.code == 0
    table, _, verdict = done.out.partition("\nVerdict: ")
    assert " ".join(verdict.split()).startswith("re-derived: every signature fits")
    assert "doesn't show that an update was trained honestly" in " ".join(verdict.split())
    rows = [line.split() for line in table.splitlines() if "to the bit" in line]
    assert [row[0] for row in rows] == ["1", "2", "3"]
    assert "given" in table
    assert too_wide(done.out) == []


def test_it_prints_what_everything_hangs_on(typed: Typed, folder: Path) -> None:
    done = typed("audit", folder)
    assert DIGEST in done.out
    assert f"Key of {LEAD}: SHA256:" in done.out
    assert "by telephone or in person" in " ".join(done.out.split())


def test_what_is_wrong_and_what_is_missing_are_named_apart(typed: Typed, folder: Path) -> None:
    changed = folder / name_of(FILES, "r0003", ".global.")
    changed.write_bytes(changed.read_bytes()[:-1] + b"\x01")
    (folder / name_of(FILES, f"r0001.{B}")).unlink()
    done = typed("audit", folder)
    assert done.code == 6
    wrong, missing = done.out.split("What is missing:")
    assert wrong.startswith("What is wrong:")
    assert changed.name in wrong
    assert f"The update of {B} for round 1" in " ".join(missing.split())
    assert "Verdict: diverges: 1 wrong" in done.out


def test_a_site_alone_is_incomplete_and_the_exit_code_says_so(typed: Typed, folder: Path) -> None:
    for path in folder.rglob(f"*.{B}.update.safetensors*"):
        path.unlink()
    done = typed("audit", folder)
    assert done.code == 6
    assert "Verdict: incomplete: nothing is wrong" in done.out
    assert "What is wrong" not in done.out


def test_json_gives_everything(typed: Typed, folder: Path) -> None:
    (folder / name_of(FILES, f"r0001.{B}")).unlink()
    answer = typed("audit", folder, "--json")
    assert answer.code == 6
    found = answer.json
    assert (found["verdict"], found["federation"]) == ("incomplete", DIGEST)
    assert found["rounds"][2]["included"] == [A, "hospital-c"]
    assert {f["kind"] for f in found["findings"]} == {"missing"}
    assert {f["round"] for f in found["findings"]} == {1, None}


def test_another_federation_than_the_one_that_is_asked_for_is_refused(
    typed: Typed, folder: Path
) -> None:
    assert typed("audit", folder, "--federation", DIGEST[:12]).code == 0
    done = typed("audit", folder, "--federation", "0123")
    assert done.code == 2
    assert DIGEST[:16] in done.err


def test_a_file_name_can_not_paint_on_the_terminal(typed: Typed, folder: Path) -> None:
    source = folder / name_of(FILES, "r0001", ".record.")
    evil = folder / "\x1b[31mred.json"
    evil.write_bytes(source.read_bytes())
    done = typed("audit", folder)
    assert done.code == 6
    assert "\x1b" not in done.out
    assert "\\x1b[31mred.json" in done.out


def test_archive_says_where_it_is_and_what_comes_next(
    typed: Typed, folder: Path, tmp_path: Path
) -> None:
    marker = f'role = "coordinator"\nname = "{LEAD}"\nkey = "key/id_ed25519"\n'
    (folder / "brainfed.toml").write_text(marker)
    to = tmp_path / "for-the-auditor"
    done = typed("archive", to, "--workspace", folder)
    assert done.code == 0, done.err
    assert f"brainfed audit {to}" in done.out
    assert typed("audit", to).code == 0
    again = typed("archive", to, "--workspace", folder, "--json").json
    assert (again["n_new"], again["federation"]) == (0, DIGEST)
