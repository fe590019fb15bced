"""The module over golden images: python -m unittest discover python/tests, where unluks is installed."""

import gzip
import hashlib
import io
import json
import pathlib
import subprocess
import tempfile
import threading
import unittest

import unluks
from unluks import _program

TESTDATA = pathlib.Path(__file__).parents[2] / "testdata"
IMAGE = TESTDATA / "openstack-volume.img"
KEY = TESTDATA / "openstack-volume.key"
PLAINTEXT = "2418469f191b058a6b7978b814fedef5afec2a38585bae15c9bc24fb0b5e5b36"


class Images(unittest.TestCase):
    def test_a_header_is_shown_without_a_key(self):
        image = unluks.open(IMAGE)
        self.assertEqual(image.metadata["version"], 1)
        self.assertEqual(image.layout[0]["kind"], "header")
        self.assertIn(image.metadata["uuid"], repr(image))
        self.assertTrue(all("code" in finding for finding in image.findings))

    def test_the_plaintext_is_a_file(self):
        volume = unluks.open(str(IMAGE)).unlock(barbican=KEY)
        self.assertIsInstance(volume, io.RawIOBase)
        self.assertEqual((volume.size, volume.get_size(), len(volume), volume.keyslots), (4096, 4096, 4096, [0]))
        self.assertEqual(hashlib.sha256(volume.read()).hexdigest(), PLAINTEXT)
        self.assertEqual((volume.read(), volume.tell(), volume.get_offset()), (b"", 4096, 4096))
        self.assertEqual(volume.seek(-4090, io.SEEK_END), 6)
        start = volume.pread(10, 0)
        self.assertEqual((volume.read(4), volume.tell()), (start[6:10], 10))
        buffer = bytearray(8192)
        self.assertEqual(volume.readinto(buffer), 4086)
        self.assertEqual((volume.pread(10, 4090).__len__(), volume.pread(1, 1 << 60)), (6, b""))
        self.assertEqual(io.BufferedReader(unluks.open(IMAGE).unlock(barbican=KEY)).read(10), start)
        with self.assertRaises(ValueError):
            volume.seek(-1)
        volume.close()
        with self.assertRaises(ValueError):
            volume.pread(1, 0)

    def test_keys_of_all_kinds(self):
        image, payload = unluks.open(IMAGE), KEY.read_bytes()
        keys = [{"barbican": payload}, {"passphrase": payload.hex()}, {"guess": KEY}, {"key_file": payload.hex().encode()}]
        for key in keys:
            self.assertEqual(image.unlock(**key, slot=0).size, 4096)
        with self.assertRaises(TypeError):
            image.unlock()
        with self.assertRaises(TypeError):
            image.unlock("a", key_file=KEY)
        with self.assertRaises(FileNotFoundError):
            image.unlock(key_file="/nowhere")

    def test_errors_are_of_their_kind(self):
        image = unluks.open(IMAGE)
        with self.assertRaises(unluks.WrongKeyError) as raised:
            image.unlock("wrong")
        self.assertIsInstance(raised.exception, unluks.Error)
        self.assertEqual(raised.exception.rule, "passphrase")
        self.assertIn("keyslot 0", str(raised.exception))
        self.assertTrue(raised.exception.hint)
        with self.assertRaises(unluks.InvalidInputError):
            image.unlock("wrong", slot=9)
        with self.assertRaises(unluks.InvalidInputError):
            unluks.open(IMAGE, format="none")
        with self.assertRaises(unluks.IoError):
            unluks.open("/nowhere")
        with tempfile.NamedTemporaryFile() as empty, self.assertRaises(unluks.CorruptError):
            unluks.open(empty.name)

    def test_a_partition_and_a_detached_header(self):
        with tempfile.TemporaryDirectory() as folder:
            def unpack(name):
                path = pathlib.Path(folder) / name
                path.write_bytes(gzip.decompress((TESTDATA / f"{name}.gz").read_bytes()))
                return path

            disk = json.loads((TESTDATA / "gpt.json").read_text())
            volume = unluks.open(unpack("gpt.img"), partition=2).unlock(disk["passphrase"])
            self.assertEqual(hashlib.sha256(volume.pread(8192, 0)).hexdigest(), disk["sha256"])
            image = unluks.open(unpack("l2-detached.img"), header=unpack("l2-detached.hdr"))
            self.assertGreater(image.unlock("pass-l2-detached").size, 0)

    def test_threads_read_at_once(self):
        volume = unluks.open(IMAGE).unlock(barbican=KEY)
        whole, wrong = volume.pread(4096, 0), []

        def read():
            for offset in range(0, 4096, 7):
                if volume.pread(100, offset) != whole[offset : offset + 100]:
                    wrong.append(offset)

        threads = [threading.Thread(target=read) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(wrong, [])

    def test_file_objects(self):
        for name in ("openstack-volume.img",):
            with (TESTDATA / name).open("rb") as file:
                volume = unluks.open(file).unlock(barbican=KEY)
                self.assertEqual(hashlib.sha256(volume.read()).hexdigest(), PLAINTEXT)
        memory = io.BytesIO(IMAGE.read_bytes())
        image = unluks.open(memory, offset=0)
        self.assertEqual(image.unlock(barbican=KEY).size, 4096)
        with self.assertRaises(TypeError):
            image.verify(barbican=KEY)

        class Broken(io.BytesIO):
            def read(self, size=-1):
                raise OSError("the disk is gone")

        with self.assertRaisesRegex(unluks.IoError, "the disk is gone"):
            unluks.open(Broken(IMAGE.read_bytes()))

    def test_a_notebook_shows_a_table(self):
        shown = unluks.open(IMAGE)._repr_html_()
        self.assertTrue(shown.startswith("<table>") and "uuid" in shown)


class Program(unittest.TestCase):
    """What the program does, through the module."""

    def test_the_program_is_of_the_modules_version(self):
        out = subprocess.run([_program.path(), "--version"], capture_output=True, text=True, check=True).stdout
        self.assertEqual(out.split(), ["unluks", unluks.__version__])

    def test_verify(self):
        report = unluks.open(IMAGE).verify(barbican=KEY)
        self.assertIn(report["verdict"], ("restorable", "restorable-with-findings"))
        self.assertEqual(unluks.verify(IMAGE, passphrase="wrong")["verdict"], "wrong-key")
        self.assertEqual(unluks.verify(IMAGE, barbican=KEY.read_bytes(), must_be="ext4")["verdict"], "not-restorable")
        with self.assertRaises(unluks.IoError):
            unluks.verify("/nowhere")

    def test_decrypt(self):
        with tempfile.TemporaryDirectory() as folder:
            out, seen = pathlib.Path(folder) / "plain", []
            unluks.open(IMAGE).decrypt(out, barbican=KEY, progress=seen.append)
            self.assertEqual(hashlib.sha256(out.read_bytes()).hexdigest(), PLAINTEXT)
            with self.assertRaisesRegex(unluks.Error, "force"):
                unluks.open(IMAGE).decrypt(out, barbican=KEY)
            with self.assertRaises(unluks.WrongKeyError):
                unluks.open(IMAGE).decrypt(out, passphrase="wrong", force=True)

    def test_scan_and_serve(self):
        self.assertEqual(len(unluks.scan(IMAGE)["containers"]), 1)
        with unluks.open(IMAGE).serve(barbican=KEY) as uri:
            path = uri.split("=", 1)[1]
            self.assertTrue(pathlib.Path(path).is_socket())
        self.assertFalse(pathlib.Path(path).exists())
        with self.assertRaises(unluks.WrongKeyError), unluks.open(IMAGE).serve(passphrase="wrong"):
            pass


if __name__ == "__main__":
    unittest.main()
