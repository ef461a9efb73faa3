"""`release`: the page, the approver's signature, and the round in four commands."""

from pathlib import Path

import pytest

from brainfed.core.sshsig import public_key
from brainfed.formats import federation, ledger, signature
from brainfed.steps.exchange import export
from tests.approving import an_approving_federation, approver
from tests.builders import a_plan, write_dataset
from tests.cli.typed import Typed, too_wide
from tests.federation import Small, a_federation, carry, train


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return an_approving_federation(tmp_path)


def approve_words(small: Small, *more: object) -> list[object]:
    key = approver(small).key_path
    return ["release", "--approve", "--key", key, "--who", "Dr. Who", *more]


def test_the_page_then_the_signature_then_the_way_out(typed: Typed, small: Small) -> None:
    site = small.sites["hospital-a"]
    train(site)
    at = ("--workspace", site.root)
    refused = typed("export", "--to", small.medium(), *at)
    assert refused.code == 3
    assert "brainfed release --approve --key FILE --who NAME" in " ".join(refused.err.split())

    made = typed("release", *at)
    assert made.code == 0, made.err
    assert made.out.startswith("These weights, trained only on your ")
    assert "release page and let the approver approve it" in " ".join(made.out.split())
    assert too_wide(made.out) == []

    asked = typed(*approve_words(small, *at), answers="y\n")
    assert asked.code == 0, asked.err
    (page,) = site.round_folder(1).glob("*.release.html")
    for told in ("These weights, trained only on your ", signature.digest_of(page).hex()):
        assert told in " ".join(asked.err.split())
    assert ledger.read(site.ledger_path)[-1]["who"] == "Dr. Who"

    assert typed("export", "--to", small.medium(), *at).code == 0
    taken = typed("import", small.medium(), "--workspace", small.coordinator.root, "--json")
    assert taken.code == 0
    assert "hospital-a.release lets an update of round 1 leave" in taken.out


def test_a_no_approves_nothing_and_without_a_terminal_yes_is_named(
    typed: Typed, small: Small
) -> None:
    site = small.sites["hospital-a"]
    train(site)
    at = ("--workspace", site.root)
    typed("release", *at)
    assert typed(*approve_words(small, *at), answers="n\n").code == 3
    nobody = typed(*approve_words(small, *at))
    assert nobody.code == 2
    assert "--yes" in nobody.err
    assert not list(site.round_folder(1).glob("*.approval.json"))
    done = typed(*approve_words(small, "--yes", "--json", *at))
    assert done.code == 0
    assert done.json["is_signed"] is True


def test_a_key_in_a_token_gets_the_line_that_signs(typed: Typed, small: Small) -> None:
    site = small.sites["hospital-a"]
    train(site)
    at = ("--workspace", site.root)
    typed("release", *at)
    public = signature.public_path(approver(small).key_path)
    words = ["release", "--approve", "--key", public, "--who", "X", "--yes", *at]
    answer = typed(*words)
    assert answer.code == 0
    (path,) = site.round_folder(1).glob("*.approval.json")
    assert f"ssh-keygen -Y sign -n brainfed-release -f {public} {path}" in answer.out


@pytest.mark.parametrize(
    "words", [("--approve",), ("--who", "X"), ("--approve", "--who", "X"), ("--yes",)]
)
def test_options_that_belong_together_are_asked_for_together(
    typed: Typed, small: Small, words: tuple[str, ...]
) -> None:
    answer = typed("release", *words, "--workspace", small.sites["hospital-a"].root)
    assert answer.code == 2
    assert "brainfed release" in answer.err


def test_json_is_the_release_itself(typed: Typed, tmp_path: Path) -> None:
    small = a_federation(tmp_path)
    site = small.sites["hospital-a"]
    train(site, n_patients=11)
    answer = typed("release", "--json", "--workspace", site.root)
    assert answer.code == 0
    assert answer.json["needs_approval"] is False
    assert answer.json["release"]["n_patients"] == 11
    assert answer.json["release"]["sentence"].startswith("These weights, trained only on your 11 ")


def test_it_is_a_sites_command(typed: Typed, small: Small) -> None:
    answer = typed("release", "--workspace", small.coordinator.root)
    assert answer.code == 3
    assert "belongs to the site" in answer.err


def test_the_first_import_shows_licence_agreement_and_intended_use_and_what_is_asked(
    typed: Typed, tmp_path: Path
) -> None:
    terms = {
        "weights_licence": "CC-BY-4.0",
        "agreement_sha256": "ab" * 32,
        "intended_use": "Research on gliomas at the sites that take part.",
    }
    exchange = {"encryption": "off", "approval": True}
    small = a_federation(tmp_path, plan=a_plan(terms=terms, exchange=exchange), joined=False)
    site = small.sites["hospital-a"]
    answer = typed("import", small.coordinator.outbox, "--workspace", site.root, answers="y\ny\n")
    assert answer.code == 0
    shown = " ".join(answer.err.split())
    for told in (*terms.values(), "needs the signature of this site's approver before it leaves"):
        assert told in shown
    assert public_key(small.coordinator.private_key()).fingerprint in shown
    path = federation.acceptance_path(site, site.name, 1)
    assert not signature.signature_path(path).exists()
    carry(site, small.coordinator, small.medium())
    assert signature.verify_file(path).key == site.public_key()
    assert federation.acceptance_path(small.coordinator, site.name, 1).exists()


def test_approving_makes_a_page_where_there_is_none_and_a_yes_beforehand_is_none(
    typed: Typed, small: Small
) -> None:
    site = small.sites["hospital-a"]
    train(site)
    at = ("--workspace", site.root)
    rash = typed(*approve_words(small, "--yes", *at))
    assert rash.code == 3
    assert "nobody can have read it" in " ".join(rash.err.split())
    assert not list(site.round_folder(1).glob("*.approval.json"))
    assert typed(*approve_words(small, "--yes", *at)).code == 0  # the page lay there by then


def test_a_whole_round_of_a_site_is_four_commands(typed: Typed, small: Small) -> None:
    site = small.sites["hospital-a"]
    write_dataset(site.data)
    at = ("--workspace", site.root)
    export(small.coordinator, small.medium())
    stick = small.medium()
    assert typed("import", stick, *at).code == 0
    assert typed("train-round", "--threads", "1", *at).code == 0
    assert typed(*approve_words(small, *at), answers="y\n").code == 0
    assert typed("export", "--to", stick, *at).code == 0
    assert typed("import", stick, "--workspace", small.coordinator.root).code == 0
    board = typed("status", "--json", "--workspace", small.coordinator.root).json["board"]
    assert board["rounds"][-1]["updates"]["hospital-a"] == "here"
