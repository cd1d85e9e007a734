"""An export that goes on after it broke off, as when the API is restarted, for as long as it is of one snapshot."""

from __future__ import annotations

import json
from collections.abc import Iterator

from crochet_tasks.client.calls import Call, Caller
from crochet_tasks.errors import ApiUnavailable


def lines(caller: Caller, call: Call) -> Iterator[bytes]:
    """The lines of an export. Raises ApiUnavailable where the API does not answer for long, sends nothing more, or has
    found more orthos since it broke off: then it has to begin again.
    """
    first, last, broken = "", b"", None
    while True:
        before, known = last, call.parameters if not last else {**call.parameters, "after": json.loads(last)["id"]}
        try:
            with caller.tagged_lines(call._replace(parameters=known)) as (tag, found):
                first = first or tag
                if tag == first:
                    for line in found:
                        yield line
                        last = line
                    return
        except ApiUnavailable as error:
            if "tries" in error.context or last == before or not first:  # it did not begin, or sends nothing
                raise
            broken = error
        else:
            raise ApiUnavailable(
                url=caller.url, reason="its export broke off, and more has been found since"
            ) from broken
