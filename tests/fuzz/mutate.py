"""Ways to make a wrong signed file out of right ones; each a function of its random state."""

import base64
import hashlib
import json
import random
from collections.abc import Callable
from typing import Any

from brainfed.core import sshsig
from tests.fuzz.corpus import Paper, Scene

Wrong = tuple[bytes, bytes, str]
"""Data, armored signature, name on the medium."""
Mutation = Callable[[random.Random, Scene], Wrong]

EVIL_NAMES = (
    "../../etc/passwd", "con", "a\x1b[31m.safetensors", "x" * 250, "a\u202egpj.exe", "-rf", "; ls",
    "rounds/r0001/x.safetensors", "\u0000", ".tmp-x", "aux.json", "\ud800", "a\nb", "%n%s", "",
)  # fmt: skip


def byte_edits(rng: random.Random, scene: Scene) -> Wrong:
    """Bytes changed, put in, taken out, cut off or doubled."""
    paper = rng.choice(scene.papers)
    return _edited(rng, paper.data), paper.armored, paper.name


def signature_edits(rng: random.Random, scene: Scene) -> Wrong:
    """The signature's text or the bytes in it changed."""
    paper = rng.choice(scene.papers)
    if rng.random() < 0.5:
        return paper.data, _edited(rng, paper.armored), paper.name
    lines = paper.armored.splitlines()
    blob = bytearray(base64.b64decode(b"".join(lines[1:-1])))
    for _ in range(rng.randint(1, 3)):
        blob[rng.randrange(len(blob))] ^= 1 << rng.randrange(8)
    text = base64.b64encode(blob)
    body = [text[at : at + 70] for at in range(0, len(text), 70)]
    return paper.data, b"\n".join([lines[0], *body, lines[-1]]) + b"\n", paper.name


def field_edits(rng: random.Random, scene: Scene) -> Wrong:
    """A field of the content changed, written canonically, under the old signature."""
    paper = rng.choice(scene.papers)
    return _other_content(rng, paper), paper.armored, paper.name


def mix_and_match(rng: random.Random, scene: Scene) -> Wrong:
    """The data of one file, the signature of another."""
    first, second = rng.sample(scene.papers, 2)
    return first.data, second.armored, first.name


def spliced(rng: random.Random, scene: Scene) -> Wrong:
    """The beginning of one file, the end of another."""
    first, second = rng.sample(scene.papers, 2)
    at = rng.randrange(min(len(first.data), len(second.data)))
    return first.data[:at] + second.data[at:], rng.choice((first, second)).armored, first.name


def replay(rng: random.Random, scene: Scene) -> Wrong:
    """A genuine file again: of an older round, an older roster, or one that is there already."""
    paper = rng.choice(scene.papers)
    return paper.data, paper.armored, paper.name


def strangers_key(rng: random.Random, scene: Scene) -> Wrong:
    """Genuine or changed content, signed by a key that nobody knows."""
    paper = rng.choice(scene.papers)
    data = _other_content(rng, paper) if rng.random() < 0.5 else paper.data
    return data, _sign(scene, "stranger", data), paper.name


def impersonation(rng: random.Random, scene: Scene) -> Wrong:
    """Content of one party, signed by another one of the roster."""
    paper = rng.choice(scene.papers)
    others = [name for name in ("uni-lead", "hospital-a", "hospital-b") if name != paper.signer]
    data = _other_content(rng, paper) if rng.random() < 0.3 else paper.data
    return data, _sign(scene, rng.choice(others), data), paper.name


def other_namespace(rng: random.Random, scene: Scene) -> Wrong:
    """The right party's signature, made for another purpose."""
    paper = rng.choice(scene.papers)
    namespace = rng.choice(("brainfed-release", "file", "git", "", "brainfed\0", "Brainfed"))
    return paper.data, _sign(scene, paper.signer, paper.data, namespace), paper.name


def evil_names(rng: random.Random, scene: Scene) -> Wrong:
    """Any of the others, under a name that wants to be a path or to paint on a terminal."""
    data, armored, _ = rng.choice(UNTRUSTED[:-1])(rng, scene)
    return data, armored, rng.choice(EVIL_NAMES)


def malformed_by_a_trusted_signer(rng: random.Random, scene: Scene) -> Wrong:
    """Changed content that its rightful sender signs: a class of its own, reported apart."""
    paper = rng.choice(scene.papers)
    how = rng.choice((_other_content, _edited_paper, _wild_json))
    data = how(rng, paper)
    return data, _sign(scene, paper.signer, data), paper.name


UNTRUSTED: tuple[Mutation, ...] = (
    byte_edits, signature_edits, field_edits, mix_and_match, spliced, replay, strangers_key,
    impersonation, other_namespace, evil_names,
)  # fmt: skip
"""None of these may be accepted, unless it is a genuine file, unchanged."""


def _sign(scene: Scene, name: str, data: bytes, namespace: str = sshsig.NAMESPACE) -> bytes:
    digest = hashlib.sha256(data).digest()
    return sshsig.sign(scene.keys[name], digest, namespace).armored


def _edited_paper(rng: random.Random, paper: Paper) -> bytes:
    return _edited(rng, paper.data)


def _edited(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        # Half of the edits go into the first bytes, where lengths and structure are.
        at = rng.randrange(max(1, len(changed) if rng.random() < 0.5 else min(64, len(changed))))
        kind = rng.randrange(5)
        if kind == 0 and changed:
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[at:at] = rng.randbytes(rng.choice((1, 4, 64)))
        elif kind == 2:
            del changed[at : at + rng.choice((1, 4, 64, 10_000))]
        elif kind == 3:
            changed[at : at + 8] = rng.choice((b"\xff" * 8, b"\0" * 8, b"{" * 8, b"9" * 8))
        else:
            changed[at:at] = changed[max(0, at - 32) : at]
    return bytes(changed)


VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 99, 10**9, 2**53, 2**64, "", "uni-lead", "hospital-a",
    "hospital-b", "a" * 64, "0" * 64, "../..", "\u0000", "\ud83d\ude00", [], {}, [[]], {"": {}},
    "real", "drill", "active", "revoked", "coordinator", 10**400,
)  # fmt: skip


def _other_content(rng: random.Random, paper: Paper) -> bytes:
    """One field somewhere in the content set to another value, the rest written canonically."""
    if paper.kind != "weights":
        content = json.loads(paper.data)
        _change(rng, content)
        return _canonical(content)
    length = int.from_bytes(paper.data[:8], "little")
    header = json.loads(paper.data[8 : 8 + length])
    if rng.random() < 0.6:
        manifest = json.loads(header["__metadata__"]["brainfed"])
        _change(rng, manifest)
        header["__metadata__"]["brainfed"] = _canonical(manifest).decode("ascii")
    else:
        _change(rng, header)
    text = _canonical(header)
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + paper.data[8 + length :]


def _change(rng: random.Random, content: Any) -> None:
    """Set, take out or add one entry at a random depth."""
    while True:
        keys = list(content) if isinstance(content, dict) else list(range(len(content)))
        inner = [k for k in keys if isinstance(content[k], dict | list) and content[k]]
        if not inner or rng.random() < 0.5:
            break
        content = content[rng.choice(inner)]
    kind = rng.randrange(4)
    if kind == 0 and keys:
        del content[rng.choice(keys)]
    elif kind == 1 and isinstance(content, dict):
        content[rng.choice(("note", "patient", "format", "kind", "__metadata__"))] = rng.choice(
            VALUES
        )
    elif keys:
        content[rng.choice(keys)] = rng.choice(VALUES)


def _wild_json(rng: random.Random, paper: Paper) -> bytes:
    """JSON that no writer of ours makes: deep, long, doubled keys, other spellings."""
    deep = rng.choice((10, 1000, 100_000))
    return rng.choice(
        (
            b'{"kind":' + b"[" * deep + b"]" * deep + b"}",
            b'{"kind":"roster",' + paper.data[1:],
            paper.data.replace(b":", b": ", 1),
            paper.data.replace(b"1", b"1.0", 1),
            paper.data.replace(b"1", b"1" * 5000, 1),
            paper.data.replace(b"a", b"\\u0061", 1),
            b'{"kind":"' + rng.choice((b"start", b"nothing", b"state", b"update")) + b'"}',
            b'{"' + rng.randbytes(40),
            rng.randbytes(8) + b'{"' + rng.randbytes(200),
            (2**63).to_bytes(8, "little") + b'{"a":1}',
        )
    )


def _canonical(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode("ascii")
