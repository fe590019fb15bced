"""LUKS1 and LUKS2 images without cryptsetup, root or device-mapper. Nothing is ever written to an image.

>>> image = unluks.open("disk.qcow2", partition="3")
>>> image.metadata["uuid"]
>>> with image.unlock(key_file="volume.key") as plain:
...     plain.pread(512, 0)
"""

import html
import io
import json
import os
import tempfile
import threading

from ._native import (
    CorruptError,
    Error,
    InvalidInputError,
    IoError,
    LimitError,
    UnsupportedError,
    WrongKeyError,
    __version__,
)
from . import _native, _program

__all__ = [
    "CorruptError",
    "Error",
    "Image",
    "InvalidInputError",
    "IoError",
    "LimitError",
    "UnsupportedError",
    "Volume",
    "WrongKeyError",
    "__version__",
    "open",
    "scan",
    "verify",
]


class Image:
    """An image whose header was read and validated."""

    def __init__(self, native, path=None, options=None):
        self._native = native
        self._path = path
        self._options = options or {}
        self._report = None

    @property
    def metadata(self):
        """All that the header says, as docs/inspect.schema.json has it."""
        if self._report is None:
            self._report = json.loads(self._native.report())
        return self._report

    @property
    def layout(self):
        """Which bytes of which file are what."""
        return self.metadata["layout"]

    @property
    def findings(self):
        """What is legal, but its owner should know."""
        return self.metadata["findings"]

    @property
    def layers(self):
        """What lies on what, from the file down to what holds the container."""
        return (self.metadata.get("container") or {}).get("layers", [])

    @property
    def notes(self):
        """What was found and chosen on the way from the file to the container."""
        return self._native.notes()

    def unlock(self, passphrase=None, *, key_file=None, barbican=None, guess=None, volume_key=None, slot=None):
        """The plaintext, with one key.

        ``passphrase`` is text or bytes; the others are the path of a file, or its bytes. ``slot`` tries one keyslot alone.
        """
        keys = {"passphrase": passphrase, "key_file": key_file, "barbican": barbican, "guess": guess, "volume_key": volume_key}
        given = {kind: key for kind, key in keys.items() if key is not None}
        if len(given) != 1:
            raise TypeError(f"one key is wanted, of {', '.join(keys)}; {len(given)} were given")
        ((kind, key),) = given.items()
        secret, file = None, None
        if kind == "passphrase":
            secret = key.encode() if isinstance(key, str) else bytes(key)
        elif isinstance(key, (bytes, bytearray, memoryview)):
            secret = bytes(key)
        else:
            file = os.fspath(key)
        return Volume(self._native.unlock(kind, secret, file, slot))

    def verify(self, *, passphrase=None, key_file=None, barbican=None, guess=None, volume_key=None, **options):
        """The report of ``unluks verify --json`` (docs/verify.schema.json), whatever the verdict is."""
        keys = _keys(passphrase, key_file, barbican, guess, volume_key)
        return verify(self._named(), **keys, **self._options, **options)

    def decrypt(
        self, output, *, passphrase=None, key_file=None, barbican=None, guess=None, volume_key=None, progress=None, **options
    ):
        """Writes the plaintext to a file, which has its name when it is whole.

        ``progress`` is called about twice a second with the numbers of ``--progress json``.
        """
        keys = _keys(passphrase, key_file, barbican, guess, volume_key)
        arguments = [self._named(), "--output", os.fspath(output)]
        _program.run("decrypt", arguments, keys, {**self._options, **options}, progress=progress)

    def ls(self, path="/", *, passphrase=None, key_file=None, barbican=None, guess=None, volume_key=None, **options):
        """The names in a directory of the file systems inside, as docs/files.schema.json has them."""
        keys = _keys(passphrase, key_file, barbican, guess, volume_key)
        out = _program.run("ls", ["--json", self._named(), path], keys, {**self._options, **options})
        return [json.loads(line) for line in out.splitlines()]

    def open_file(self, path, *, passphrase=None, key_file=None, barbican=None, guess=None, volume_key=None, **options):
        """A file of the file systems inside, to be read. All of it is read at once: take ``unluks cp`` for large ones."""
        keys = _keys(passphrase, key_file, barbican, guess, volume_key)
        return io.BytesIO(_program.run("cat", [self._named(), path], keys, {**self._options, **options}))

    def serve(self, *, passphrase=None, key_file=None, barbican=None, guess=None, volume_key=None, **options):
        """A context in which the plaintext is served over NBD, read-only; it gives the URI."""
        keys = _keys(passphrase, key_file, barbican, guess, volume_key)
        return _program.serve(self._named(), keys, {**self._options, **options})

    def _named(self):
        if self._path is None:
            raise TypeError("this image is a file object: only one that has a path can be given to the program")
        return self._path

    def _repr_html_(self):
        m, rows = self.metadata, []
        for name in ("version", "uuid", "label"):
            rows.append((name, m.get(name)))
        for part in self.layout:
            rows.append((part["kind"], f"{part['start']} to {'the end' if part['end'] is None else part['end']}"))
        rows += [(finding["severity"], finding["message"]) for finding in self.findings]
        cells = "".join(f"<tr><th>{html.escape(str(a))}</th><td>{html.escape(str(b))}</td></tr>" for a, b in rows)
        return f"<table>{cells}</table>"

    def __repr__(self):
        return f"<unluks.Image LUKS{self.metadata['version']} {self.metadata['uuid']}>"


class Volume(io.RawIOBase):
    """The plaintext as a file that can be read at any place. Threads may share it: ``pread`` has no position."""

    def __init__(self, native):
        super().__init__()
        self._native = native
        self._lock = threading.Lock()
        self._position = 0

    @property
    def size(self):
        """The bytes of the plaintext."""
        return self._native.size

    @property
    def keyslots(self):
        """The keyslots that opened."""
        return self._native.keyslots

    def pread(self, length, offset):
        """Up to ``length`` bytes from ``offset`` on, whatever the position."""
        self._check()
        return self._native.pread(length, offset)

    def read(self, size=-1, /):
        with self._lock:
            left = max(self.size - self._position, 0)
            data = self.pread(left if size is None or size < 0 else min(size, left), self._position)
            self._position += len(data)
            return data

    def readall(self):
        return self.read()

    def readinto(self, buffer, /):
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def seek(self, offset, whence=io.SEEK_SET, /):
        self._check()
        with self._lock:
            start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}.get(whence)
            if start is None:
                raise ValueError(f"whence is {whence}; 0, 1 and 2 are allowed")
            if start + offset < 0:
                raise ValueError("a position before the start")
            self._position = start + offset
            return self._position

    def tell(self):
        self._check()
        return self._position

    # As libyal's objects have it, and pytsk3 and dfvfs want it.
    def get_offset(self):
        return self.tell()

    def get_size(self):
        return self.size

    def readable(self):
        return True

    def seekable(self):
        return True

    def _check(self):
        if self.closed:
            raise ValueError("I/O operation on closed file")

    def __len__(self):
        return self.size


def _keys(passphrase, key_file, barbican, guess, volume_key):
    return {
        "passphrase": passphrase,
        "key_file": key_file,
        "barbican": barbican,
        "guess": guess,
        "volume_key": volume_key,
    }


def open(source, *, header=None, partition=None, volume=None, offset=None, format=None, with_=()):
    """Opens an image: detects its format, looks for a partition, and finds the LUKS header.

    ``source`` and ``header`` are paths or file objects with ``seek`` and ``read``. ``partition`` is a number, label or
    UUID; ``volume`` one of LVM; ``with_`` the other disks of a set.
    """
    partition = None if partition is None else str(partition)
    if hasattr(source, "read"):
        if with_:
            raise TypeError("with_ is for images that are named by their paths")
        if header is not None and not hasattr(header, "read"):
            with io.open(header, "rb") as file:
                header = io.BytesIO(file.read())
        return Image(_native.open_object(source, header, partition, volume, offset, format))
    header = None if header is None else os.fspath(header)
    path, others = os.fspath(source), [os.fspath(other) for other in with_]
    options = {"header": header, "partition": partition, "volume": volume, "offset": offset, "format": format, "with": others}
    options = {name: value for name, value in options.items() if value is not None}
    return Image(_native.open_image(path, header, partition, volume, offset, format, others), path, options)


def scan(path, **options):
    """All headers on a disk, as docs/scan.schema.json has them."""
    return json.loads(_program.run("scan", ["--json", os.fspath(path)], options=options))


def verify(path, *, passphrase=None, key_file=None, barbican=None, guess=None, volume_key=None, **options):
    """The report of ``unluks verify --json`` on an image or a backup's folder, whatever the verdict is.

    Other keywords are the program's flags: ``quick=True``, ``must_be="ext4"``, ``policy="policy.toml"``.
    """
    keys = _keys(passphrase, key_file, barbican, guess, volume_key)
    with tempfile.TemporaryDirectory() as folder:
        report = os.path.join(folder, "report.json")
        _program.run("verify", [os.fspath(path), f"--json={report}"], keys, options, good=(0, 3, 4, 7))
        with io.open(report, encoding="utf-8") as file:
            return json.load(file)
