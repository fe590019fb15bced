"""Readers of file systems that people have, over the plaintext of an image; they are those of requirements.txt."""

import gzip
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

import pytsk3
from dfvfs.lib import tsk_image
from dissect.target import filesystem

import unluks

ROOT = pathlib.Path(__file__).parents[2]
TESTDATA = ROOT / "testdata"


class Readers(unittest.TestCase):
    def setUp(self):
        sidecar = json.loads((TESTDATA / "l2-ext4.json").read_text())
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = pathlib.Path(folder.name) / "disk.img"
        path.write_bytes(gzip.decompress((TESTDATA / sidecar["image"]).read_bytes()))
        self.image = unluks.open(path)
        self.passphrase = sidecar["passphrase"]
        self.volume = self.image.unlock(self.passphrase)
        self.content = self.image.open_file("/hello.txt", passphrase=self.passphrase).read()

    def test_unluks_itself(self):
        names = [pathlib.Path(entry["path"]).name for entry in self.image.ls(passphrase=self.passphrase)]
        self.assertEqual(sorted(names), ["hello.txt", "lost+found"])
        self.assertGreater(len(self.content), 0)
        with self.assertRaises(unluks.InvalidInputError):
            self.image.open_file("/nothing", passphrase=self.passphrase)

    def test_dissect(self):
        files = filesystem.open(self.volume)
        self.assertEqual(files.path("/hello.txt").read_bytes(), self.content)

    def test_pytsk3(self):
        volume = self.volume

        class Plaintext(pytsk3.Img_Info):
            def __init__(self):
                super().__init__(url="", type=pytsk3.TSK_IMG_TYPE_EXTERNAL)

            def read(self, offset, size):
                return volume.pread(size, offset)

            def get_size(self):
                return volume.get_size()

        self._read(pytsk3.FS_Info(Plaintext()))

    def test_dfvfs(self):
        self._read(pytsk3.FS_Info(tsk_image.TSKFileSystemImage(self.volume)))

    def _read(self, files):
        entry = files.open("/hello.txt")
        self.assertEqual(entry.read_random(0, entry.info.meta.size), self.content)

    def test_the_stubs_are_the_modules(self):
        run = subprocess.run(
            [sys.executable, "-m", "mypy.stubtest", "unluks"], capture_output=True, text=True, cwd=tempfile.gettempdir()
        )
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)

    def test_the_notebook_runs(self):
        with tempfile.TemporaryDirectory() as folder:
            run = subprocess.run(
                [sys.executable, "-m", "nbconvert", "--to", "html", "--execute", "--output-dir", folder]
                + [ROOT / "python" / "examples" / "image.ipynb"],
                capture_output=True,
                text=True,
            )
            self.assertEqual(run.returncode, 0, run.stderr)
            self.assertIn("f531939b", (pathlib.Path(folder) / "image.html").read_text())


if __name__ == "__main__":
    unittest.main()
