"""`data/identities.json`: the site's key for case and patient ids, and the way back to real names.

The one file that links ids to names; mode 0600, never exchanged. An id is the first 16 hexadecimal
digits of HMAC-SHA256 under a random key, so it tells nothing to anyone who lacks this file.
"""

import hashlib
import hmac
import json
import os
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from brainfed.errors import NotReadyError, ScanError
from brainfed.formats import atomic

KEY_BYTES = 32
_KEYS = {"key", "cases", "patients", "visits"}


@dataclass(frozen=True, slots=True)
class Identities:
    """The key and the names behind the ids."""

    key: bytes
    cases: dict[str, str] = field(default_factory=dict)
    """Real folder name by case id."""
    patients: dict[str, str] = field(default_factory=dict)
    """Real patient name by patient id."""
    visits: dict[str, str] = field(default_factory=dict)
    """Visit by case id: a number, a word, or the date of a study."""

    def __repr__(self) -> str:
        # A key or a name must not reach a log by way of an error report.
        return f"Identities({len(self.cases)} cases, {len(self.patients)} patients)"

    def case_id(self, name: str) -> str:
        """The id of the case with this folder name."""
        return self._id(b"case", name)

    def patient_id(self, name: str) -> str:
        """The id of the patient with this name."""
        return self._id(b"patient", name)

    def _id(self, kind: bytes, name: str) -> str:
        # fsencode: a folder name need not be valid UTF-8.
        return hmac.new(self.key, kind + b"\0" + os.fsencode(name), hashlib.sha256).hexdigest()[:16]


def path_of(data_folder: Path) -> Path:
    """Where the identities lie."""
    return data_folder / "identities.json"


def open_or_new(data_folder: Path) -> Identities:
    """The identities, or new ones with a key of their own where there are none.

    Raises:
        ScanError: The file is damaged.
    """
    if path_of(data_folder).exists():
        return read(data_folder)
    return Identities(key=secrets.token_bytes(KEY_BYTES))


def write(data_folder: Path, known: Identities) -> None:
    """Write the identities, in place of older ones.

    Raises:
        ResourceError: The disk refuses.
    """
    content = {
        "key": known.key.hex(),
        "cases": known.cases,
        "patients": known.patients,
        "visits": known.visits,
    }
    # ASCII escapes carry names that are not valid UTF-8 there and back.
    data = json.dumps(content, ensure_ascii=True, indent=1, sort_keys=True).encode("ascii") + b"\n"
    atomic.write_bytes(path_of(data_folder), data, mode=0o600, replace=True)


def read(data_folder: Path) -> Identities:
    """Read the identities.

    Raises:
        NotReadyError: There are none yet.
        ScanError: The file is damaged.
    """
    path = path_of(data_folder)
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise NotReadyError(
            "There are no cases yet", where=path, hint="run `brainfed preprocess` first"
        ) from None
    except OSError as error:
        raise ScanError(f"{path.name} can't be read", found=error.strerror, where=path) from error
    except (ValueError, RecursionError):
        raise _damaged(path) from None
    if not isinstance(content, dict) or set(content) | {"visits"} != _KEYS:
        raise _damaged(path)
    key, cases, patients = content["key"], content["cases"], content["patients"]
    visits = content.get("visits", {})  # not in files of the first releases
    well_formed = isinstance(key, str) and re.fullmatch(r"[0-9a-f]{64}", key)
    if not (well_formed and all(map(_are_names, (cases, patients, visits)))):
        raise _damaged(path)
    return Identities(key=bytes.fromhex(key), cases=cases, patients=patients, visits=visits)


def _are_names(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(name, str) for name in value.values())


def _damaged(path: Path) -> ScanError:
    return ScanError(
        "identities.json is damaged",
        where=path,
        hint="restore it from a backup: without its key the cases can't be told apart",
    )
