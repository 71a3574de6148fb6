"""A zip archive read in place: its members by number, from any thread or process.

`zipfile` reads the directory of the archive; the members are read here, at their own offsets, because a ZipFile
shares one file position with every process forked from it, and because a stored member can then be mapped.
"""

from __future__ import annotations

import mmap
import os
import struct
import zipfile
import zlib
from pathlib import Path

from pixelfast.errors import PixelfastError

# Of an archive that holds something, and of an empty one.
MAGICS = (b"PK\x03\x04", b"PK\x05\x06")
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_ENCRYPTED = 0x1
_UTF8 = 0x800
# Deflate makes at most 1,032 bytes of one.
_DEFLATE_LIMIT = 1032


class ZipArchive:
    """The files in a zip archive, sorted by name; folders and hidden files are left out.

    Raises PixelfastError when the archive is damaged, encrypted, or packed by other methods than store and deflate.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                entries = archive.infolist()
            if not all(each.filename for each in entries):
                raise zipfile.BadZipFile("a file without a name")
            members = sorted(
                (each for each in entries if not each.is_dir() and not is_hidden(each.filename)),
                key=lambda each: each.filename,
            )
            self._file = path.open("rb")
        except (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError) as error:
            raise PixelfastError(f"{path} is a damaged zip archive ({error}); copy it again") from error
        for each in members:
            if each.flag_bits & _ENCRYPTED:
                raise PixelfastError(f"{path} is encrypted ({each.filename!r}); pack it without a password")
            if each.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise PixelfastError(
                    f"{path} packs {each.filename!r} by method {each.compress_type}; store and deflate are read"
                )
        self.names = [each.filename for each in members]
        self._raw_names = [
            each.orig_filename.encode("utf-8" if each.flag_bits & _UTF8 else "cp437") for each in members
        ]
        self._places = [
            (each.header_offset, each.compress_size, each.file_size, each.CRC, each.compress_type) for each in members
        ]

    def size(self, number: int) -> int:
        """Bytes of a member when unpacked, as the directory says."""
        return self._places[number][2]

    def is_stored(self, number: int) -> bool:
        """Whether a member lies in the archive as it is."""
        return self._places[number][4] == zipfile.ZIP_STORED

    def read(self, number: int) -> bytes:
        """A whole member, its CRC checked. Raises PixelfastError when it is damaged."""
        _, packed, size, crc, _ = self._places[number]
        # A damaged directory must not make us ask for memory that the member cannot fill.
        if self.is_stored(number):
            content = self._at(self._start(number), packed)
        elif size > _DEFLATE_LIMIT * packed:
            raise self._damaged(number, "its size in the directory is impossible")
        else:
            content = self._inflate(number, size + 1)
        if len(content) != size:
            raise self._damaged(number, f"{size} bytes announced, {len(content)} found")
        if zlib.crc32(content) != crc:
            raise self._damaged(number, "its checksum is wrong")
        return content

    def head(self, number: int, length: int) -> bytes:
        """At most `length` bytes from the start of a member, unpacked, unchecked."""
        if self.is_stored(number):
            return self._at(self._start(number), min(length, self._places[number][1]))
        return self._inflate(number, length)

    def map(self, number: int) -> memoryview:
        """A stored member mapped into memory, its CRC checked by reading it once."""
        _, packed, size, crc, _ = self._places[number]
        start = self._start(number)
        if packed != size or start + size > os.fstat(self._file.fileno()).st_size:
            raise self._damaged(number, "it ends after the archive does")
        whole = memoryview(mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ))
        member = whole[start : start + size]
        if zlib.crc32(member) != crc:
            raise self._damaged(number, "its checksum is wrong")
        return member

    def _inflate(self, number: int, length: int) -> bytes:
        packed = self._at(self._start(number), self._places[number][1])
        try:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, length)
        except zlib.error as error:
            raise self._damaged(number, str(error)) from error

    def _start(self, number: int) -> int:
        """Where a member's bytes begin: after its local header, whose length only it knows itself."""
        offset, name = self._places[number][0], self._raw_names[number]
        header = self._at(offset, _LOCAL_HEADER.size + len(name))
        fixed, found = header[: _LOCAL_HEADER.size], header[_LOCAL_HEADER.size :]
        # Names are classes here, and no checksum covers them: that there are two of each is their only guard.
        if len(fixed) < _LOCAL_HEADER.size or not fixed.startswith(MAGICS[0]) or found != name:
            raise self._damaged(number, "its header is not where the directory says, or has another name")
        _, length, extra = _LOCAL_HEADER.unpack(fixed)
        return offset + _LOCAL_HEADER.size + length + extra

    def _at(self, offset: int, length: int) -> bytes:
        available = os.fstat(self._file.fileno()).st_size - offset
        if offset < 0 or length > available:
            length = max(0, available)
        try:
            return os.pread(self._file.fileno(), length, offset) if length > 0 and offset >= 0 else b""
        except OSError as error:
            raise PixelfastError(f"cannot read {self.path}: {error.strerror or error}") from error

    def _damaged(self, number: int, reason: str) -> PixelfastError:
        return PixelfastError(f"{self.path} is damaged in {self.names[number]!r} ({reason}); copy it again")


def is_hidden(name: str) -> bool:
    """Whether a path is of a hidden file or lies in a hidden folder, or is the litter of a Mac."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))
