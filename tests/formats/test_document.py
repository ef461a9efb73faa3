import json
from pathlib import Path
from typing import Any

import pytest

from brainfed.core import canonical
from brainfed.errors import MalformedError, TooLargeError
from brainfed.formats import document, signature
from brainfed.formats.enrolment import Enrolment
from brainfed.formats.roster import Role, Roster
from tests.federation import a_key, a_roster


def an_enrolment() -> dict[str, Any]:
    key = a_roster(uni_lead=a_key()).coordinator.key
    return json.loads(Enrolment(name="hospital-a", role=Role.SITE, key=key).dumps())


def test_a_document_reads_back_from_its_bytes() -> None:
    roster = a_roster(uni_lead=a_key(1), hospital_a=a_key(2))
    assert Roster.loads(roster.dumps()) == roster


FIELDS = ["format", "kind", "name", "role", "key", "recipient", "n_patients"]


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_that_is_left_out_is_refused(field: str) -> None:
    content = an_enrolment()
    del content[field]
    with pytest.raises(MalformedError):
        Enrolment.loads(canonical.dumps(content))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format", 0),
        ("format", 2),
        ("format", "1"),
        ("role", "owner"),
        ("kind", "roster"),
        ("name", "Hospital A"),
        ("name", "*"),
        ("name", 5),
        ("key", "ssh-rsa AAAA"),
        ("n_patients", -1),
        ("n_patients", 2**29),
        ("n_patients", "5"),
        ("n_patients", True),
        ("recipient", ""),
        ("extra", None),
        ("comment", "Mrs. Smith"),
    ],
)
def test_an_unknown_field_or_a_wrong_value_is_refused_and_named(field: str, value: Any) -> None:
    with pytest.raises(MalformedError) as caught:
        Enrolment.loads(canonical.dumps(an_enrolment() | {field: value}))
    assert caught.value.where == field


def test_true_is_not_one() -> None:
    with pytest.raises(MalformedError):
        Enrolment.loads(canonical.dumps(an_enrolment() | {"format": True}))


@pytest.mark.parametrize("data", [b"[]", b"null", b"1", b'"a"', b"{}"])
def test_other_json_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        Enrolment.loads(data)
    with pytest.raises(MalformedError):
        document.kind_of(data)


def test_the_kind_is_read_without_knowing_it() -> None:
    assert document.kind_of(b'{"kind":"something-newer"}') == "something-newer"
    with pytest.raises(MalformedError):
        document.kind_of(b'{"kind":7}')


def test_a_json_file_over_4_mib_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "large.json").open("wb") as stream:
        stream.truncate(document.MAX_JSON_BYTES + 1)
    with pytest.raises(TooLargeError):
        document.read(tmp_path / "large.json", Enrolment)


def test_a_signed_document_lies_beside_its_signature(tmp_path: Path) -> None:
    path = tmp_path / "a.enrolment.json"
    enrolment = Enrolment.loads(canonical.dumps(an_enrolment()))
    digest = document.write_signed(path, enrolment, a_key())
    found = signature.verify_file(path).digest
    assert found == digest
    assert document.read(path, Enrolment) == enrolment
