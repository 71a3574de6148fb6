"""Downloads against a server of our own: checked, whole or not there, never repeated without being asked."""

from __future__ import annotations

import gzip
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import data_files
import numpy as np
import pytest

from pixelfast.data import downloads, fetch, open_data
from pixelfast.errors import PixelfastError


class Server:
    """Serves `contents` by path and counts the requests. The last `missing` bytes are announced and not sent."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}
        self.missing = 0
        self.requests: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests.append(self.path)
                content = server.contents.get(self.path)
                if content is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) - server.missing])

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._http.server_port}/"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server of a tiny MNIST, and the table of downloads pointing to it under the name `tiny`."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running = Server()
    files = []
    values = {
        "train-images-idx3-ubyte.gz": data_files.pixels(6, 28, 28),
        "train-labels-idx1-ubyte.gz": np.arange(6),
        "t10k-images-idx3-ubyte.gz": data_files.pixels(4, 28, 28),
        "t10k-labels-idx1-ubyte.gz": np.arange(4),
    }
    for name, array in values.items():
        content = data_files.idx_bytes(array)
        running.contents[f"/{name}"] = gzip.compress(content)
        digest = hashlib.sha256(content).hexdigest()
        files.append(downloads.Download(running.address + name, len(content), digest))
    monkeypatch.setitem(downloads.DOWNLOADS, "tiny", tuple(files))
    try:
        yield running
    finally:
        running.stop()


def fails(folder: Path) -> str:
    with pytest.raises(PixelfastError) as error:
        fetch("tiny", folder)
    message = str(error.value)
    assert message and "\n" not in message
    assert not list(folder.glob(".*")), "a part of a file stayed"
    return message


IMAGES = "train-images-idx3-ubyte.gz"


def test_what_is_fetched_can_be_opened_and_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    folder = fetch("tiny", tmp_path / "new" / "mnist")
    assert len(open_data(folder, "train")) == 6 and len(open_data(folder, "test")) == 4
    assert sorted(path.name for path in folder.iterdir()) == sorted(name[1:] for name in server.contents)
    assert len(server.requests) == 4
    written = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert fetch("tiny", folder) == folder
    assert len(server.requests) == 4
    assert written == {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    (folder / IMAGES).unlink()
    fetch("tiny", folder)
    assert server.requests[4:] == [f"/{IMAGES}"]


def test_another_packing_of_the_same_content_is_accepted(server: Server, tmp_path: Path) -> None:
    server.contents[f"/{IMAGES}"] = gzip.compress(
        gzip.decompress(server.contents[f"/{IMAGES}"]), compresslevel=1, mtime=7
    )
    assert len(open_data(fetch("tiny", tmp_path))) == 6


def flip(content: bytes) -> bytes:
    unpacked = bytearray(gzip.decompress(content))
    unpacked[100] ^= 1
    return gzip.compress(bytes(unpacked))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (flip, "another SHA-256"),
        (lambda content: content[:-30], "unpacks to"),
        (lambda content: content[:50] + b"\xff" * 60 + content[110:], "damaged"),
        (lambda content: b"<html>moved</html>", "damaged"),
        (lambda content: b"", "unpacks to 0 bytes"),
        (lambda content: content + b"more", "does not end"),
        (lambda content: gzip.compress(bytes(50 << 20)), "more than 4720 bytes"),
    ],
)
def test_a_wrong_download_leaves_nothing(
    server: Server, tmp_path: Path, change: Callable[[bytes], bytes], words: str
) -> None:
    server.contents[f"/{IMAGES}"] = change(server.contents[f"/{IMAGES}"])
    message = fails(tmp_path)
    assert words in message and server.address + IMAGES in message
    assert not (tmp_path / IMAGES).exists()


def test_a_connection_that_breaks(server: Server, tmp_path: Path) -> None:
    server.missing = 10
    message = fails(tmp_path)
    assert "instead of 4720" in message or "cannot download" in message
    assert not list(tmp_path.iterdir())


def test_an_address_that_is_gone(server: Server, tmp_path: Path) -> None:
    del server.contents["/t10k-labels-idx1-ubyte.gz"]
    assert "404" in fails(tmp_path)
    # What was fetched before is whole and stays.
    assert len(list(tmp_path.iterdir())) == 3


def test_no_server(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    download = downloads.Download("http://127.0.0.1:1/file.gz", 1, "00")
    monkeypatch.setitem(downloads.DOWNLOADS, "tiny", (download,))
    assert "cannot download http://127.0.0.1:1/file.gz" in fails(tmp_path)


def test_a_wrong_file_that_is_there_is_kept_and_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / IMAGES).write_bytes(b"mine")
    assert "delete it to download it again" in fails(tmp_path)
    assert (tmp_path / IMAGES).read_bytes() == b"mine" and not server.requests


def test_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(PixelfastError, match="mnist can be fetched"):
        fetch("cifar11", tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_a_folder_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PixelfastError, match="cannot write the data set"):
        fetch("tiny", tmp_path / "file")
    assert not server.requests


def test_a_full_disk(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(downloads.os, "fsync", full)
    assert "No space left on device" in fails(tmp_path)
    assert not list(tmp_path.iterdir())


def test_mnist_at_hand_is_the_one_that_would_be_fetched(shared_file: Callable[..., Path]) -> None:
    """The sizes and SHA-256 in the table are those of the data set itself; no request is made."""
    folder = shared_file("data", "mnist")
    assert [file.name for file in downloads.DOWNLOADS["mnist"]] == [
        f"{split}-{kind}-ubyte.gz" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
    ]
    assert fetch("mnist", folder) == folder
