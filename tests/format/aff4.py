"""Writes a disk as AFF4 with pyaff4: PYTHON aff4.py KIND DISK IMAGE."""
import sys

from pyaff4 import aff4_image, aff4_map, container, data_store, lexicon, plugins, rdfvalue
from pyaff4 import zip as aff4_zip

kind, disk, path = sys.argv[1:]
disk = open(disk, "rb").read()
urn = rdfvalue.URN.FromFileName(path)
if kind == "logical":
    with container.Container.createURN(data_store.MemoryDataStore(), urn) as volume:
        with open(sys.argv[2], "rb") as source:
            volume.writeLogicalStream("disk.raw", source, len(disk))
    sys.exit()
with data_store.MemoryDataStore() as resolver:
    resolver.Set(lexicon.transient_graph, urn, lexicon.AFF4_STREAM_WRITE_MODE, rdfvalue.XSDString("truncate"))
    version = container.Version(1, 0, "pyaff4")
    with aff4_zip.ZipFile.NewZipFile(resolver, version, urn) as volume:
        name = volume.urn.Append("disk one")
        if kind == "map":
            with aff4_map.AFF4Map.NewAFF4Map(resolver, name, volume.urn) as image:
                # Written out of order, and without what is zero.
                blocks = range(0, len(disk), 20000)
                for at in [*blocks[::2], *blocks[1::2]]:
                    block = disk[at : at + 20000]
                    if any(block) or at == blocks[-1]:
                        image.SeekWrite(at)
                        image.Write(block)
        else:
            method = {
                "stored": lexicon.AFF4_IMAGE_COMPRESSION_STORED,
                "zlib": lexicon.AFF4_IMAGE_COMPRESSION_ZLIB,
                "snappy": lexicon.AFF4_IMAGE_COMPRESSION_SNAPPY,
                "lz4": lexicon.AFF4_IMAGE_COMPRESSION_LZ4,
            }[kind]
            with aff4_image.AFF4Image.NewAFF4Image(resolver, name, volume.urn) as image:
                image.chunk_size = 8192
                image.chunks_per_segment = 50
                image.setCompressionMethod(method)
                image.Write(disk)
