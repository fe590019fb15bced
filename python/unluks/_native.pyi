from os import PathLike
from typing import Any, final

__all__ = [
    "CorruptError",
    "Error",
    "InvalidInputError",
    "IoError",
    "LimitError",
    "NativeImage",
    "NativeVolume",
    "UnsupportedError",
    "WrongKeyError",
    "__version__",
    "open_image",
    "open_object",
]
__version__: str

class Error(Exception):
    rule: str
    hint: str | None
    offset: int | None

class IoError(Error): ...
class CorruptError(Error): ...
class UnsupportedError(Error): ...
class LimitError(Error): ...
class WrongKeyError(Error): ...
class InvalidInputError(Error): ...

@final
class NativeVolume:
    @property
    def size(self) -> int: ...
    @property
    def keyslots(self) -> list[int]: ...
    def pread(self, length: int, offset: int) -> bytes: ...

@final
class NativeImage:
    def report(self) -> str: ...
    def notes(self) -> list[str]: ...
    def unlock(self, kind: str, secret: bytes | None, file: str | PathLike[str] | None, slot: int | None) -> NativeVolume: ...

def open_image(
    path: str | PathLike[str],
    header: str | PathLike[str] | None,
    partition: str | None,
    volume: str | None,
    offset: int | None,
    format: str | None,
    with_: list[str],
) -> NativeImage: ...
def open_object(
    object: Any,
    header: Any,
    partition: str | None,
    volume: str | None,
    offset: int | None,
    format: str | None,
) -> NativeImage: ...
