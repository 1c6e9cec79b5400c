"""Server-sent events out of bytes, as they come; pure.

The SDK decodes each event into models, which is most of what a delta costs; the fields it keeps are not needed here. Only `data`
counts: the Messages API says the kind of each event in it, too. A line ends with a line feed, with or without a carriage
return before it.
"""

import json
from typing import Any

import msgspec

LONGEST = 16 << 20  # bytes of an event: more than any reply has
_objects = msgspec.json.Decoder(dict[str, Any])


class Events:
    """One stream."""

    def __init__(self) -> None:
        self._rest = bytearray()  # the line that has not ended
        self._data: list[bytes] = []  # of the event that has not ended

    def feed(self, received: bytes) -> list[dict[str, Any]]:
        """The events that end in these bytes. `ValueError` or `TypeError` where one is no JSON object."""
        if len(self._rest) + len(received) > LONGEST:
            raise ValueError("an event without end")
        if b"\n" not in received:
            self._rest += received
            return []
        *lines, rest = bytes(self._rest + received).split(b"\n")
        self._rest = bytearray(rest)
        events = []
        for ended in lines:
            line = ended.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:])  # JSON does not mind the space before it
            elif not line and self._data:
                data, self._data = b"\n".join(self._data), []
                events.append(_decode(data))
        return events


def _decode(data: bytes) -> dict[str, Any]:
    try:
        return _objects.decode(data)
    except msgspec.DecodeError:
        found = json.loads(data)  # which takes half a surrogate pair, as a delta that was cut in one has it
    if not isinstance(found, dict):
        raise TypeError("an event that is no object")
    return found
