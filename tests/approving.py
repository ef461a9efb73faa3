"""A small federation whose plan asks for approvals, with an approver at each site."""

import atexit
import functools
import shutil
import tempfile
from datetime import date
from pathlib import Path

from brainfed.formats import workspace
from brainfed.formats.roster import Role
from brainfed.formats.workspace import Workspace
from brainfed.steps.admit import admit
from brainfed.steps.approve import Approved, approve
from brainfed.steps.release import release
from tests.builders import a_plan
from tests.federation import (
    Small,
    a_workspace,
    an_unstarted_federation,
    carry,
    copy_of,
    enrolment_of,
    say_yes,
    start,
    train,
)

APPROVAL = {"encryption": "off", "approval": True}
DAY = date(2026, 3, 2)


def an_approving_federation(root: Path) -> Small:
    """Two sites that have joined, each with an approver whose workspace lies beside."""
    return copy_of(_made(), root)


@functools.cache
def _made() -> Small:
    root = Path(tempfile.mkdtemp(prefix="brainfed-test-"))
    atexit.register(shutil.rmtree, root)
    small = an_unstarted_federation(root)
    approvers = [
        a_workspace(root / f"{name}.release", Role.APPROVER, f"{name}.release")
        for name in small.sites
    ]
    there = [*small.sites.values(), *approvers]
    admit(small.coordinator, [enrolment_of(one) for one in there], confirm=say_yes)
    start(small, a_plan(exchange=APPROVAL))
    for site in small.sites.values():
        carry(small.coordinator, site, small.medium("start"))
    return small


def approver(small: Small, site: str = "hospital-a") -> Workspace:
    """The workspace of a site's approver."""
    return workspace.find(small.root / f"{site}.release")


def let_go(small: Small, site: str = "hospital-a", key: Path | None = None) -> Approved:
    """The site's page about its update, and the approver's signature."""
    place = small.sites[site]
    release(place, today=DAY)
    return approve(place, key or approver(small, site).key_path, "Dr. Who", today=DAY)


def ready(small: Small, site: str = "hospital-a") -> Approved:
    """A site that has trained, and whose update may leave."""
    train(small.sites[site])
    return let_go(small, site)
