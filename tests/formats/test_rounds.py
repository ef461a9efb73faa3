from pathlib import Path

import pytest

from brainfed.errors import (
    MalformedError,
    NotReadyError,
    SignatureError,
    StrangerError,
    TooLargeError,
    WrongFederationError,
    WrongRoundError,
)
from brainfed.formats import federation, rounds, signature, weights
from brainfed.formats.manifest import Kind
from tests import attacks
from tests.federation import DIGESTS, Small, a_federation, a_key, close_round, sign, train


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return a_federation(tmp_path)


def an_update(small: Small, **changes: object) -> Path:
    """A signed update of hospital-a."""
    site = small.sites["hospital-a"]
    return sign(train(site, **changes), site)


def test_a_signed_update_is_verified_with_its_digest(small: Small) -> None:
    path = an_update(small)
    file = rounds.verify_weights(path, small.known)
    assert file.digest == signature.digest_of(path).hex()
    assert file.manifest.sender == "hospital-a"


def test_size_comes_before_signature_before_header(small: Small) -> None:
    path = an_update(small)
    attacks.claim_header_of(path, 100 * 2**20)
    with pytest.raises(SignatureError):
        rounds.verify_weights(path, small.known)
    with path.open("r+b") as stream:
        stream.truncate(weights.largest_file(small.known.table) + 1)
    with pytest.raises(TooLargeError):
        rounds.verify_weights(path, small.known)


def test_a_sender_is_who_signed(small: Small) -> None:
    path = an_update(small)
    for signer in (small.sites["hospital-b"], small.coordinator):
        sign(path, signer)
        with pytest.raises(StrangerError, match="another sender"):
            rounds.verify_weights(path, small.known)
    sign(path, a_key(9))
    with pytest.raises(StrangerError, match="not in the roster"):
        rounds.verify_weights(path, small.known)


def test_a_site_can_not_send_global_weights(small: Small) -> None:
    nothing = dict.fromkeys(("split", "n_patients", "n_cases", "n_slices", "n_validation"))
    path = an_update(small, kind=Kind.GLOBAL, **nothing)
    with pytest.raises(StrangerError, match="of this kind"):
        rounds.verify_weights(path, small.known)


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("federation", DIGESTS["one"], WrongFederationError),
        ("plan", {"version": 1, "digest": DIGESTS["one"]}, WrongFederationError),
        ("purpose", "simulation", WrongRoundError),
    ],
)
def test_a_file_of_elsewhere_is_refused(
    small: Small, field: str, value: object, error: type[Exception]
) -> None:
    path = an_update(small, **{field: value})
    with pytest.raises(error):
        rounds.verify_weights(path, small.known)


def test_a_manifest_that_does_not_fit_together_is_our_error(small: Small) -> None:
    with pytest.raises(MalformedError):
        rounds.new_manifest(small.known, 0, kind=Kind.UPDATE, sender="a", versions={})


def test_before_the_first_global_weights_there_is_nothing_to_train_from(tmp_path: Path) -> None:
    small = a_federation(tmp_path, joined=False)
    assert rounds.newest_round(small.sites["hospital-a"]) is None
    with pytest.raises(NotReadyError):
        rounds.newest_global(small.sites["hospital-a"], small.known)


def test_the_newest_round_is_the_highest_with_signed_global_weights(small: Small) -> None:
    site = small.sites["hospital-a"]
    train(site).rename(site.root / "kept")
    assert rounds.numbers(site) == [0, 1]
    assert rounds.newest_round(site) == 0
    close_round(small)
    assert rounds.newest_round(site) == rounds.newest_round(small.coordinator) == 1
    path = rounds.global_path(site, 1)
    assert path is not None
    signature.signature_path(path).unlink()
    assert rounds.newest_round(site) == 0


def test_damaged_global_weights_are_not_used(small: Small) -> None:
    site = small.sites["hospital-a"]
    path = rounds.global_path(site, 0)
    assert path is not None
    attacks.put_value(path, 0, 1.0)
    with pytest.raises(SignatureError):
        rounds.newest_global(site, federation.load(site))


def test_of_two_editions_the_higher_one_counts_whatever_the_names_sort_like(small: Small) -> None:
    site = small.sites["hospital-a"]
    train(site)
    for edition in (2, 10):
        again = train(site, edition=edition)
        assert rounds.update_path(site, small.known, 1, "hospital-a") == again


def test_updates_of_other_sites_and_rounds_are_not_this_sites(small: Small) -> None:
    train(small.sites["hospital-a"])
    site = small.sites["hospital-a"]
    assert rounds.update_path(site, small.known, 1, "hospital-b") is None
    assert rounds.update_path(site, small.known, 1, "a") is None
    assert rounds.update_path(site, small.known, 2, "hospital-a") is None


def test_a_record_is_the_coordinators(small: Small) -> None:
    done = close_round(small)
    record, digest = rounds.verify_record(done.record, small.known)
    assert digest == signature.digest_of(done.record).hex()
    assert record.global_digest == done.digest
    sign(done.record, small.sites["hospital-a"])
    with pytest.raises(StrangerError):
        rounds.verify_record(done.record, small.known)
