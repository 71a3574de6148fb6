"""Fields of protocol buffer messages, as far as TensorFlow's checkpoints need them.

The encoding: https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from dataclasses import dataclass, field

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MOST_FIELDS = 1 << 20


class Malformed(ValueError):
    """Bytes that do not follow their format."""


def varint(data: bytes | memoryview, place: int) -> tuple[int, int]:
    """The unsigned integer of up to 64 bits that begins at a place, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            break
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= 1 << 64:
                break
            return value, place
    raise Malformed("an integer has no end")


@dataclass
class Message:
    """Values of each field number, in their order; unknown ones, too, as the format wants it."""

    integers: dict[int, list[int]] = field(default_factory=dict)
    texts: dict[int, list[memoryview]] = field(default_factory=dict)

    def integer(self, number: int) -> int:
        """The last value of a field of integers, or of 32 or 64 fixed bits; 0 where it is left out."""
        return self.integers.get(number, [0])[-1]

    def text(self, number: int) -> memoryview:
        """The last value of a field of bytes, text or a message; empty where it is left out."""
        return self.texts.get(number, [memoryview(b"")])[-1]

    def messages(self, number: int) -> list[Message]:
        """Every value of a field of messages."""
        return [parse(value) for value in self.texts.get(number, [])]


def parse(data: bytes | memoryview) -> Message:
    """One level of a message. Raises Malformed."""
    data = memoryview(data)
    message = Message()
    place, fields = 0, 0
    while place < len(data):
        fields += 1
        if fields > MOST_FIELDS:
            raise Malformed("a message has too many fields")
        key, place = varint(data, place)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, place = varint(data, place)
            message.integers.setdefault(number, []).append(value)
        elif kind == BYTES:
            length, place = varint(data, place)
            if length > len(data) - place:
                raise Malformed("a field is longer than its message")
            message.texts.setdefault(number, []).append(data[place : place + length])
            place += length
        elif kind in (FIXED32, FIXED64):
            length = 4 if kind == FIXED32 else 8
            if length > len(data) - place:
                raise Malformed("a field is longer than its message")
            message.integers.setdefault(number, []).append(int.from_bytes(data[place : place + length], "little"))
            place += length
        else:
            raise Malformed(f"a field has the unknown wire type {kind}")
    return message


def signed(value: int) -> int:
    """An int64 from its 64 bits."""
    return value - (1 << 64) if value >> 63 else value
