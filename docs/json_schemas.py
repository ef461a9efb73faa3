"""The JSON schemas of what commands print with `--json`, made from the classes of their results.

`docs/generate.py` writes them to `reference/json/`, and the tests hold every output against them.
They mirror `brainfed.cli.console.plain`, which turns those classes into JSON.
"""

import ast
import dataclasses
import importlib
import inspect
import itertools
import json
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from brainfed.errors import BrainfedError

DRAFT = "https://json-schema.org/draft/2020-12/schema"
EXIT_CODES = (2, 3, 4, 5, 6, 7, 8, 70, 130)

RESULTS = {
    "init": ["steps.initialise.Initialised"],
    "status": ["steps.status.Status", "steps.compare_rounds.RoundsCompared"],
    "import": ["steps.receive.Import"],
    "export": ["steps.exchange.Exported"],
    "archive": ["steps.archive.Archived"],
    "report": ["cli.report.ReportFacts"],
    "drill": ["steps.drill.Drill", "steps.drill.Cleared"],
    "key show": ["steps.keys.Shown"],
    "key rotate": ["steps.rotate.Rotated"],
    "admit": ["steps.admit.Admitted"],
    "start": ["steps.start.Started"],
    "amend": ["steps.amend.Amended"],
    "revoke": ["steps.admit.Revoked"],
    "aggregate": ["steps.aggregate.Aggregated"],
    "finish": ["steps.finish.Finished"],
    "withdraw": ["steps.withdraw.Withdrawal"],
    "check": ["steps.check_rows.CheckResult"],
    "preprocess": ["steps.case_rows.PreprocessResult", "steps.check_rows.CheckResult"],
    "review": ["steps.review.ReviewResult", "formats.review.ReviewRow"],
    "split": ["steps.split.SplitResult"],
    "train-round": ["cli.training.TrainFacts"],
    "release": ["steps.release.Released", "steps.approve.Approved"],
    "evaluate": ["steps.evaluate.EvaluateResult", "steps.score_maps.MapsResult"],
    "exclude": ["steps.exclude.Excluded"],
    "purge": ["steps.purge.Purged"],
    "predict": ["steps.predict_rows.PredictResult"],
    "doctor": ["steps.doctor.Diagnosis"],
    "demo": ["steps.demo.DemoResult", "cli.demo.Scans"],
    "inspect": ["steps.inspect.Inspected"],
    "audit": ["steps.audit.Audited"],
    "simulate run": ["cli.simulation_words.SimulationFacts", "steps.outlook.Outlook"],
    "simulate partition": ["cli.simulation_words.PartitionFacts"],
    "plan show": ["cli.plan.PlanShown"],
    "plan check": ["cli.plan.PlanFacts"],
    "plan from-weights": ["plan.Network"],
    "plan cost": ["cli.plan.PlanCost"],
}
"""By command, the classes of what it prints: one, or one for each way to use it."""

REFUSES_PARTS = {"check", "preprocess", "predict"}
"""Commands that print their whole result and, with it, why they refuse a part."""


def makers() -> dict[str, Callable[[], str]]:
    """What makes each schema, by file name: that of the command, words joined by a hyphen."""
    return {file_of(command): partial(text_of, command) for command in RESULTS}


def file_of(command: str) -> str:
    """Where the schema of a command lies, below the reference."""
    return f"json/{command.replace(' ', '-')}.json"


def text_of(command: str) -> str:
    """The schema of one command."""
    return json.dumps(schema_of(command), indent=1) + "\n"


def schema_of(command: str) -> dict[str, Any]:
    """The schema of what a command prints: one of its results, or why it refuses."""
    made = _Definitions()
    refs = [made.of(_class(name)) for name in RESULTS[command]]
    if command in REFUSES_PARTS:
        for ref in refs:
            made.found[ref["$ref"].rpartition("/")[2]]["properties"]["error"] = made.error()
    refused = {
        "description": "The command refused, and changed nothing.",
        "type": "object",
        "properties": {"error": made.error()},
        "required": ["error"],
    }
    return {
        "$schema": DRAFT,
        "title": f"brainfed {command} --json",
        "anyOf": [*refs, {"$ref": "#/$defs/Refused"}],
        "$defs": dict(sorted({**made.found, "Refused": refused}.items())),
    }


def _class(name: str) -> type:
    module, _, kind = name.rpartition(".")
    found: type = getattr(importlib.import_module(f"brainfed.{module}"), kind)
    return found


class _Definitions:
    """Schemas of classes, each made once, by name."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, Any]] = {}
        self._kinds: dict[str, type] = {}

    def of(self, kind: Any) -> dict[str, Any]:
        """The schema of a type, as `plain` gives its values."""
        origin, inner = get_origin(kind), get_args(kind)
        if origin is Annotated:
            return self.of(inner[0])
        if origin in (Union, types.UnionType):
            return _either([self.of(part) for part in inner])
        if origin is Literal:
            return {"enum": list(inner)}
        if origin is dict or origin is Mapping:
            return {"type": "object", "additionalProperties": self.of(inner[1])}
        if origin is tuple and inner[-1] is not Ellipsis:
            parts = [self.of(part) for part in inner]
            n = len(parts)
            return {"type": "array", "prefixItems": parts, "minItems": n, "maxItems": n}
        if origin in (tuple, list, frozenset):
            return {"type": "array", "items": self.of(inner[0])}
        if kind is Any:
            return {}
        if issubclass(kind, BrainfedError):
            return self.error()
        if kind in _SIMPLE:
            return dict(_SIMPLE[kind])
        if issubclass(kind, Enum):
            return self._named(kind, _of_enum)
        if issubclass(kind, BaseModel):
            return self._named(kind, self._of_model)
        if dataclasses.is_dataclass(kind):
            return self._named(kind, self._of_dataclass)
        raise TypeError(f"no schema for {kind}: brainfed.cli.console.plain doesn't know it")

    def error(self) -> dict[str, Any]:
        """The schema of an error of brainfed."""
        text = {"type": "string"}
        self.found["Error"] = {
            "description": "What is wrong, where, and what to do next.",
            "type": "object",
            "properties": {
                "kind": {"description": "A name of the page errors.md.", **text},
                "exit_code": {"enum": list(EXIT_CODES)},
                "message": text,
                **dict.fromkeys(("where", "expected", "found", "next"), text),
            },
            "required": ["kind", "exit_code", "message"],
        }
        return {"$ref": "#/$defs/Error"}

    def _named(self, kind: type, make: Any) -> dict[str, Any]:
        name = kind.__name__
        if self._kinds.setdefault(name, kind) is not kind:
            name = f"{kind.__module__.rpartition('.')[2]}.{name}"
            self._kinds[name] = kind
        if name not in self.found:
            self.found[name] = {}  # a class that names itself ends here
            self.found[name] = make(kind)
        return {"$ref": f"#/$defs/{name}"}

    def _of_dataclass(self, kind: type) -> dict[str, Any]:
        hints = get_type_hints(kind, localns=_imported_for_types(kind), include_extras=True)
        said = _said(kind)
        names = [field.name for field in dataclasses.fields(kind)]
        properties = {name: self.of(hints[name]) for name in names}
        for name in names:
            if name in said:
                properties[name] = {"description": said[name], **properties[name]}
        return {
            "description": _first_sentence(kind),
            "type": "object",
            "properties": properties,
            "required": names,
        }

    def _of_model(self, kind: type[BaseModel]) -> dict[str, Any]:
        made = kind.model_json_schema(mode="serialization", ref_template="#/$defs/{model}")
        for name, inner in made.pop("$defs", {}).items():
            self.found.setdefault(name, _without_limits(inner))
        return {"description": _first_sentence(kind), **_without_limits(made)}


_SIMPLE: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    Path: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    # JSON has no word for a number that can't be computed.
    float: {"type": ["number", "null"]},
    type(None): {"type": "null"},
}


def _of_enum(kind: type[Enum]) -> dict[str, Any]:
    return {"description": _first_sentence(kind), "enum": [member.value for member in kind]}


def _either(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """One of several; plain types beside null are written in short."""
    if all(set(part) == {"type"} for part in parts):
        kinds = [part["type"] for part in parts]
        flat = [k for kind in kinds for k in (kind if isinstance(kind, list) else [kind])]
        return {"type": list(dict.fromkeys(flat))}
    return {"anyOf": parts}


def _without_limits(schema: Any) -> Any:
    """A schema of pydantic's as outputs are: with every field, and later versions may add some."""
    if isinstance(schema, list):
        return [_without_limits(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {k: _without_limits(v) for k, v in schema.items() if k not in {"title", "default"}}
    if kept.get("additionalProperties") is False:
        del kept["additionalProperties"]
    if kept.get("type") == "object" and "properties" in kept:
        kept["required"] = list(kept["properties"])
    return kept


def _imported_for_types(kind: type) -> dict[str, Any]:
    """What a module imports for its annotations alone."""
    names: dict[str, Any] = {}
    for node in ast.parse(inspect.getsource(sys.modules[kind.__module__])).body:
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            exec(compile(ast.Module(node.body, []), kind.__module__, "exec"), names)
    return names


def _said(kind: type) -> dict[str, str]:
    """What stands below each field of a class and of those it extends."""
    said: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if dataclasses.is_dataclass(base) and isinstance(base, type):
            said.update(attribute_docstrings(base))
    return said


def attribute_docstrings(kind: type) -> dict[str, str]:
    """What stands below each field; pydantic itself would read it with every command's start."""
    tree = ast.parse(inspect.getsource(kind))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef))
    return dict(_pairs(body))


def _pairs(body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    for field, said in itertools.pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(said, ast.Expr)
            and isinstance(said.value, ast.Constant)
        ):
            yield field.target.id, " ".join(str(said.value.value).split())


def _first_sentence(kind: type) -> str:
    return " ".join(inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0].split())
