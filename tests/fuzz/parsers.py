"""Coverage-guided fuzzing of one parser: `python -m tests.fuzz.parsers TARGET [libFuzzer options]`

Targets: header, manifest, signature, roster. Needs atheris (3.0.0 for Python 3.11), which is no
part of the set-up: `make fuzz-parsers` installs it beside. Whatever the bytes, a parser gives a
value or one of our errors; anything else stops the fuzzer with the input kept.
"""

import io
import sys
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["brainfed"]):
    from brainfed.core import sshsig
    from brainfed.errors import FileRefusedError
    from brainfed.formats import weights
    from brainfed.formats.manifest import Manifest
    from brainfed.formats.roster import Roster

from brainfed.core.architecture import tensor_table
from tests.builders import a_plan

TABLE = tensor_table(a_plan())
WHERE = Path("fuzzed")


def header(data: bytes) -> None:
    weights.check_stream(io.BytesIO(data), len(data), TABLE, WHERE)


def manifest(data: bytes) -> None:
    assert Manifest.loads(data).dumps() == data


def signature(data: bytes) -> None:
    found = sshsig.parse_signature(data)
    assert sshsig.parse_signature(found.armored) == found


def roster(data: bytes) -> None:
    assert Roster.loads(data).dumps() == data


TARGETS: dict[str, Callable[[bytes], None]] = {
    "header": header, "manifest": manifest, "signature": signature, "roster": roster,
}  # fmt: skip


def main() -> None:
    name = sys.argv.pop(1)
    target = TARGETS[name]

    def one(data: bytes) -> None:
        try:
            target(data)
        except FileRefusedError:
            return

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


def write_corpus(folder: Path) -> None:
    """Genuine files of each kind, for the fuzzer to begin from."""
    from tests.fuzz.corpus import a_scene

    for paper in a_scene().papers:
        kinds = {"weights": "header", "roster": "roster"}
        for target, data in (
            (kinds.get(paper.kind), paper.data),
            ("signature", paper.armored),
        ):
            if target is not None:
                (folder / target).mkdir(parents=True, exist_ok=True)
                (folder / target / paper.name).write_bytes(data)
        if paper.kind == "weights":
            head = weights.read_raw_header(io.BytesIO(paper.data), WHERE)
            (folder / "manifest").mkdir(parents=True, exist_ok=True)
            text = weights.parse_manifest(head, WHERE).dumps()
            (folder / "manifest" / paper.name).write_bytes(text)


if __name__ == "__main__":
    if sys.argv[1] == "corpus":
        write_corpus(Path(sys.argv[2]))
    else:
        main()
