"""The approval: an update may leave its site (`docs/formats/approval.md`)."""

from typing import Annotated, Literal

from pydantic import Field

from brainfed.formats.document import ApproverName, Belonging, Day, Digest, Edition


class Approval(Belonging):
    """A site's approver lets one update leave; signed in the namespace `brainfed-release`."""

    kind: Literal["approval"] = "approval"
    sender: ApproverName
    """The approver's principal, SITE.release; who the person is stays at the site."""
    round: Annotated[int, Field(ge=1, le=9999)]
    edition: Edition
    update: Digest
    """Digest of the update that may leave."""
    page: Digest | None
    """Digest of the release page that was read; null where there was none."""
    day: Day
