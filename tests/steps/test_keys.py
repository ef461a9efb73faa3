from pathlib import Path

from brainfed.core import sshsig
from brainfed.formats import courier, signature, workspace
from brainfed.formats.roster import Role
from brainfed.steps import keys
from brainfed.steps.initialise import initialise
from tests.federation import a_key, a_workspace


def test_a_coordinators_keys_are_shown_without_a_passphrase(tmp_path: Path) -> None:
    initialise(tmp_path, Role.COORDINATOR, "uni-lead", passphrase=b"open sesame")
    place = workspace.find(tmp_path)
    shown = keys.show(place)
    assert shown.fingerprint == place.public_key().fingerprint
    assert shown.public_key == place.public_key().line
    assert (shown.is_here, shown.is_encrypted) == (True, True)
    recovery = signature.read_public(signature.public_path(place.recovery_path))
    assert shown.recovery_fingerprint == recovery.fingerprint
    assert shown.recovery_is_here
    place.recovery_path.unlink()
    assert not keys.show(place).recovery_is_here
    assert keys.show(place).recovery_fingerprint == recovery.fingerprint


def test_a_sites_keys_are_shown(tmp_path: Path) -> None:
    place = a_workspace(tmp_path, Role.SITE, "hospital-a")
    shown = keys.show(place)
    assert (shown.private_key, shown.is_encrypted) == (place.key_path, False)
    assert (shown.recovery_fingerprint, shown.recovery_is_here) == (None, False)
    expected = courier.recipient_of(place.identity_path) if courier.is_available() else None
    assert shown.recipient == expected
    place.key_path.unlink()
    assert not keys.show(place).is_here


def test_a_key_that_is_elsewhere_is_shown_so(tmp_path: Path) -> None:
    signature.write_public(tmp_path / "mine.pub", sshsig.public_key(a_key()))
    root, given = tmp_path / "a", tmp_path / "mine.pub"
    initialise(root, Role.SITE, "hospital-a", given=given)
    shown = keys.show(workspace.find(root))
    assert (shown.private_key, shown.is_here) == (None, False)
