import io
import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, BinaryIO

from ._native import (
    CorruptError as CorruptError,
    Error as Error,
    InvalidInputError as InvalidInputError,
    IoError as IoError,
    LimitError as LimitError,
    NativeImage,
    NativeVolume,
    UnsupportedError as UnsupportedError,
    WrongKeyError as WrongKeyError,
    __version__ as __version__,
)

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

_Path = str | os.PathLike[str]
_Secret = _Path | bytes | bytearray | memoryview

class Volume(io.RawIOBase):
    def __init__(self, native: NativeVolume) -> None: ...
    @property
    def size(self) -> int: ...
    @property
    def keyslots(self) -> list[int]: ...
    def pread(self, length: int, offset: int) -> bytes: ...
    def get_offset(self) -> int: ...
    def get_size(self) -> int: ...
    def __len__(self) -> int: ...

class Image:
    def __init__(
        self, native: NativeImage, path: str | None = None, options: dict[str, Any] | None = None
    ) -> None: ...
    @property
    def metadata(self) -> dict[str, Any]: ...
    @property
    def layout(self) -> list[dict[str, Any]]: ...
    @property
    def findings(self) -> list[dict[str, Any]]: ...
    @property
    def notes(self) -> list[str]: ...
    def unlock(
        self,
        passphrase: str | bytes | bytearray | memoryview | None = None,
        *,
        key_file: _Secret | None = None,
        barbican: _Secret | None = None,
        guess: _Secret | None = None,
        volume_key: _Secret | None = None,
        slot: int | None = None,
    ) -> Volume: ...
    @property
    def layers(self) -> list[dict[str, Any]]: ...
    def verify(
        self,
        *,
        passphrase: str | bytes | bytearray | memoryview | None = None,
        key_file: _Secret | None = None,
        barbican: _Secret | None = None,
        guess: _Secret | None = None,
        volume_key: _Secret | None = None,
        **options: Any,
    ) -> dict[str, Any]: ...
    def decrypt(
        self,
        output: _Path,
        *,
        passphrase: str | bytes | bytearray | memoryview | None = None,
        key_file: _Secret | None = None,
        barbican: _Secret | None = None,
        guess: _Secret | None = None,
        volume_key: _Secret | None = None,
        progress: Callable[[dict[str, Any]], None] | None = None,
        **options: Any,
    ) -> None: ...
    def ls(
        self,
        path: str = "/",
        *,
        passphrase: str | bytes | bytearray | memoryview | None = None,
        key_file: _Secret | None = None,
        barbican: _Secret | None = None,
        guess: _Secret | None = None,
        volume_key: _Secret | None = None,
        **options: Any,
    ) -> list[dict[str, Any]]: ...
    def open_file(
        self,
        path: str,
        *,
        passphrase: str | bytes | bytearray | memoryview | None = None,
        key_file: _Secret | None = None,
        barbican: _Secret | None = None,
        guess: _Secret | None = None,
        volume_key: _Secret | None = None,
        **options: Any,
    ) -> io.BytesIO: ...
    def serve(
        self,
        *,
        passphrase: str | bytes | bytearray | memoryview | None = None,
        key_file: _Secret | None = None,
        barbican: _Secret | None = None,
        guess: _Secret | None = None,
        volume_key: _Secret | None = None,
        **options: Any,
    ) -> AbstractContextManager[str]: ...
    def _repr_html_(self) -> str: ...

def open(
    source: _Path | BinaryIO,
    *,
    header: _Path | BinaryIO | None = None,
    partition: int | str | None = None,
    volume: str | None = None,
    offset: int | None = None,
    format: str | None = None,
    with_: Iterable[_Path] = (),
) -> Image: ...
def scan(path: _Path, **options: Any) -> dict[str, Any]: ...
def verify(
    path: _Path,
    *,
    passphrase: str | bytes | bytearray | memoryview | None = None,
    key_file: _Secret | None = None,
    barbican: _Secret | None = None,
    guess: _Secret | None = None,
    volume_key: _Secret | None = None,
    **options: Any,
) -> dict[str, Any]: ...
