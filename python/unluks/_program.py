"""The program ``unluks``, which comes with the module: what it prints as JSON, and its errors as exceptions."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

from ._native import CorruptError, Error, InvalidInputError, IoError, LimitError, UnsupportedError, WrongKeyError

_BY_CODE = {1: IoError, 2: InvalidInputError, 3: WrongKeyError, 4: CorruptError, 5: UnsupportedError, 6: LimitError}
_FLAGS = {
    "barbican": "--barbican-key",
    "guess": "--key",
    "key_file": "--key-file",
    "passphrase": "--key-file",
    "volume_key": "--volume-key-file",
}


def path():
    """The program: the one in the package, or the first in PATH."""
    own = pathlib.Path(__file__).with_name("bin") / "unluks"
    found = str(own) if own.exists() else shutil.which("unluks")
    if found is None:
        raise IoError("the program unluks is not in this package, and in no folder of PATH")
    return found


def main():
    """``unluks`` on the command line. The script that calls this is not the program that it looks for."""
    own = pathlib.Path(__file__).with_name("bin") / "unluks"
    if not own.exists():
        sys.exit("unluks: the program is not in this package: it was built without")
    os.execv(own, ["unluks", *sys.argv[1:]])


class _Keys:
    """One key as a flag. What is in memory goes through a file that has no name, and never into the arguments."""

    def __init__(self, keys):
        given = {kind: key for kind, key in keys.items() if key is not None}
        if len(given) > 1:
            raise TypeError(f"at most one key is wanted, of {', '.join(_FLAGS)}; {len(given)} were given")
        self.fds, self.flags = [], []
        for kind, key in given.items():
            if isinstance(key, str) and kind == "passphrase":
                key = key.encode()
            if isinstance(key, (bytes, bytearray, memoryview)):
                fd = os.memfd_create("key", os.MFD_CLOEXEC)
                self.fds.append(fd)
                os.write(fd, key)
                os.lseek(fd, 0, os.SEEK_SET)
                key = f"/dev/fd/{fd}"
            elif kind == "passphrase":
                raise TypeError("a passphrase is text or bytes; key_file names a file")
            self.flags += [_FLAGS[kind], os.fspath(key)]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for fd in self.fds:
            os.close(fd)


def failed(code, message):
    """The exception of an exit code."""
    lines = message.strip().splitlines()
    line = lines[-1].removeprefix("unluks: ") if lines else f"unluks ended with {code}"
    error = _BY_CODE.get(code, Error)(line)
    error.rule, error.hint, error.offset = "", None, None
    return error


def flags(options):
    """Keyword arguments as flags: ``must_be="ext4"``, ``quick=True``, ``with_=[…]``."""
    made = []
    for name, value in options.items():
        flag = "--" + name.rstrip("_").replace("_", "-")
        for one in value if isinstance(value, (list, tuple)) else [value]:
            if one is True:
                made.append(flag)
            elif one is not None and one is not False:
                made += [flag, os.fspath(one) if isinstance(one, os.PathLike) else str(one)]
    return made


def run(command, arguments, keys=None, options=None, good=(0,), progress=None):
    """Runs it to its end, and gives its standard output."""
    with _Keys(keys or {}) as key:
        line = [path(), command, *arguments, *key.flags, *flags(options or {})]
        if progress is not None:
            line += ["--progress", "json"]
        with subprocess.Popen(
            line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=key.fds
        ) as process:
            try:
                said = []
                if progress is None:
                    out, err = process.communicate()
                    said = err.decode(errors="replace").splitlines()
                else:
                    for text in process.stderr:
                        text = text.decode(errors="replace")
                        if text.startswith("{"):
                            progress(json.loads(text))
                        else:
                            said.append(text)
                    out = process.stdout.read()
                    process.wait()
            except BaseException:
                # What it has begun it takes away itself.
                process.send_signal(signal.SIGTERM)
                raise
        if process.returncode not in good:
            raise failed(process.returncode, "\n".join(said))
        return out


@contextlib.contextmanager
def serve(image, keys, options):
    """The plaintext over NBD for as long as the context lasts; gives the URI."""
    with tempfile.TemporaryDirectory() as folder, _Keys(keys) as key:
        socket = os.path.join(folder, "nbd")
        line = [path(), "serve", image, "--socket", socket, *key.flags, *flags(options)]
        process = subprocess.Popen(
            line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, pass_fds=key.fds
        )
        said = []
        try:
            for text in process.stdout:
                said.append(text.decode(errors="replace"))
                if os.path.exists(socket):
                    break
            if not os.path.exists(socket):
                raise failed(process.wait(), "".join(said))
            yield f"nbd+unix:///?socket={socket}"
        finally:
            process.terminate()
            process.stdout.close()
            process.wait()
