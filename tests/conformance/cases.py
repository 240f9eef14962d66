"""All cases, in their groups."""

from typing import Final

from conformance import attacks, connections, replies, requests
from conformance.steps import Case

GROUPS: Final[dict[str, list[Case]]] = {**requests.GROUPS, **attacks.GROUPS, **replies.GROUPS, **connections.GROUPS}
CASES: Final = [case for group in GROUPS.values() for case in group]
