"""The release as a page for the officer: what leaves, who can read it, what was checked."""

from collections.abc import Iterator

from brainfed.formats.federation import Federation
from brainfed.formats.release import Attack, Release, Result
from brainfed.formats.report_page import Block, Cell, Facts, Items, Page, Section, Table, Text
from brainfed.steps import release_facts

BANNER = "For the people of this site: not to be sent with the weights"


def lay_out(told: Release, known: Federation, own_floor: int) -> Page:
    """The page; the same release gives the same page.

    Args:
        told: The release.
        known: The federation.
        own_floor: The site's own floor.
    """
    purpose = "" if told.purpose == "real" else f" This is a {told.purpose}, not real training."
    return Page(
        title=f"Release of the update of {told.sender}, round {told.round}",
        lead=f"{told.sentence}{purpose}",
        banner=BANNER,
        sections=(
            Section("Who will be able to read them", _readers(told, known)),
            Section("What to decide", _decide(told, known)),
            Section("Files that leave", _files(told)),
            Section("What was checked", _checks(told)),
            Section("Membership test", list(_membership(told))),
            Section("Numbers that go along", _numbers(told, known, own_floor)),
            Section("Tensors", _tensors(told)),
            Section("Plan, software and digests", [_digests(told, known)]),
            Section("What this page can't show", [_limits()]),
        ),
        foot=f"Made on {told.day} by brainfed {told.made_by} at {told.sender}. The same content "
        "lies beside this page as signed JSON.",
    )


def _readers(told: Release, known: Federation) -> list[Block]:
    plan = known.plan_of(told.round)
    sentences = release_facts.about_readers(
        told.readers, told.files, plan, told.update, round_number=told.round
    )
    rows = tuple((reader.name, str(reader.role), str(reader.what)) for reader in told.readers)
    return [
        Items(sentences),
        Table(caption="By the newest roster here", columns=("who", "role", "reads"), rows=rows),
    ]


def _decide(told: Release, known: Federation) -> list[Block]:
    terms = known.plan_of(told.round).terms
    found = [check.what for check in told.checks if check.result is Result.FOUND]
    blocks: list[Block] = [
        Text(f"Look at this first: {'; '.join(found)}.", is_warning=True)
    ] * bool(found)
    facts = (
        ("intended use", terms.intended_use),
        ("licence of the global weights", terms.weights_licence),
        ("agreement, SHA-256", terms.agreement_sha256 or "the plan names none"),
        ("purpose", told.purpose),
        ("digest of the update", told.update),
    )
    words = (
        "To let these weights leave, the approver types “brainfed release --approve --key FILE "
        "--who NAME”. What travels is a signature and the role; the name stays in this site's "
        "ledger."
        if known.plan_of(told.round).exchange.approval
        else "The plan asks for no approval; “brainfed export” sends these files."
    )
    return [*blocks, Facts(facts), Text(words)]


def _files(told: Release) -> list[Block]:
    rows = tuple(
        (
            Cell(file.name, file.digest),
            file.what,
            f"{file.n_bytes:,}",
            ", ".join(file.encrypted_for) or "nobody: in the clear",
        )
        for file in told.files
    )
    table = Table(
        caption="Everything that “brainfed export” would copy now",
        columns=("file, SHA-256", "what it is", "bytes", "encrypted for"),
        rows=rows,
        note="Beside each lies its signature, NAME.sig, and for people a packing list. Where the "
        "plan asks for it, the approval travels too: key, role, this update's digest and that of "
        "this page.",
    )
    return [table]


def _checks(told: Release) -> list[Block]:
    rows = tuple((check.what, str(check.result), check.details) for check in told.checks)
    return [
        Table(
            caption="Checked on this computer, just before this page was written",
            columns=("what", "result", "details"),
            rows=rows,
            is_prose=True,
        )
    ]


def _membership(told: Release) -> Iterator[Block]:
    yield Text(
        "Do losses tell the patients that the network was trained on from validation patients, "
        "whom it was not trained on? Whoever has a patient's scans and these weights could ask so."
    )
    found = told.membership
    if found.attacks:
        yield Table(
            caption=f"{found.n_train} training and {found.n_validation} validation patients",
            columns=(
                "weights",
                "area under the curve",
                "95 % interval",
                "true positives",
                "at false positives",
            ),
            rows=tuple(_attack(attack) for attack in found.attacks),
            note="Loss of a patient: soft Dice loss plus cross-entropy, the mean over its cases. "
            "Yeom et al. 2018; the share at few false positives after Carlini et al. 2022.",
        )
    yield Text(found.words)


def _attack(attack: Attack) -> tuple[str, ...]:
    return (
        {"update": "this update", "parent": "its parent"}[attack.weights],
        f"{attack.auc / 1e6:.2f}",
        f"{attack.low / 1e6:.2f} to {attack.high / 1e6:.2f}",
        f"{attack.true_positives / 1e4:.1f} %",
        f"{attack.false_positives / 1e4:.1f} %",
    )


def _numbers(told: Release, known: Federation, own_floor: int) -> list[Block]:
    floor = known.plan_of(told.round).participation.floor
    rows = tuple((one.field, one.value, one.why, one.floor, one.file) for one in told.numbers)
    return [
        Text(
            f"The plan's floor is {floor}, this site's own {own_floor}; the higher one holds. All "
            "numbers beside the weights themselves:"
        ),
        Table(
            caption="Every number that goes along, and why",
            columns=("field", "value", "why it goes", "floor", "file"),
            rows=rows,
        ),
    ]


def _tensors(told: Release) -> list[Block]:
    rows = tuple(
        (
            one.name,
            " x ".join(map(str, one.shape)),
            f"{one.n_bytes:,}",
            f"{one.norm / 1e6:.4g}",
            f"{one.change / 1e6:.4g}",
            f"{one.share / 1e4:.2f} %",
        )
        for one in told.tensors
    )
    n_bytes = sum(one.n_bytes for one in told.tensors)
    return [
        Text(
            f"{len(told.tensors)} tensors, {n_bytes:,} bytes. The whole change has the norm "
            f"{told.change / 1e6:.4g}, {told.relative_change / 1e4:.2f} % of its parent's."
        ),
        Table(
            caption="All tensors of the update",
            columns=("tensor", "shape", "bytes", "norm", "norm of its change", "share of change"),
            rows=rows,
            note="Norms are Euclidean. The change is update less parent; a tensor's share is that "
            "of the squared norm of the whole change.",
            is_folded=len(rows) > 60,
        ),
    ]


def _digests(told: Release, known: Federation) -> Facts:
    versions = ", ".join(f"{name} {text}" for name, text in sorted(told.software.items()))
    return Facts(
        (
            ("federation", f"{known.name}, {told.federation}"),
            ("plan", f"version {told.plan.version}, {told.plan.digest}"),
            ("round and edition", f"{told.round}, {told.edition}"),
            ("update", told.update),
            ("its parent, the global weights it was trained from", told.parent),
            ("software that made the update", versions),
            ("software that made this page", f"brainfed {told.made_by}"),
            ("roster", f"version {told.roster_version}"),
        )
    )


def _limits() -> Items:
    return Items(
        (
            "No check of numbers proves that nothing of a patient can be drawn out of the weights. "
            "They are learned from patients; treat them as the parties agreed.",
            "The search for names finds accidents, not intent.",
            "The membership test bounds one attack, not all.",
            "What readers do with the weights is a matter of the agreement, not of this software.",
        )
    )
