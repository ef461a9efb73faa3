"""A site's own rule that names DICOM series: a TOML file, as `core.sequence_rule` has it."""

from pathlib import Path

from brainfed.core.sequence_rule import SequenceRule, parse_rule
from brainfed.errors import UsageError

MAX_RULE_BYTES = 2**18


def load(path: Path) -> SequenceRule:
    """Read a rule.

    Raises:
        UsageError: The file can't be read, or is far too large.
        ScanError: It is no rule (`core.sequence_rule.parse_rule`).
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_RULE_BYTES + 1)
    except OSError as error:
        raise UsageError(
            "The rule can't be read",
            found=error.strerror,
            where=path,
            hint="name it as it lies: --sequences FILE",
        ) from error
    if len(data) > MAX_RULE_BYTES:
        raise UsageError("This is no rule", expected=f"at most {MAX_RULE_BYTES} bytes", where=path)
    return parse_rule(data, path)
