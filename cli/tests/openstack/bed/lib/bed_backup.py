"""Cinder's posix backup driver, with a compression for each backup instead of one for the cloud.

The property `compression` of a backup names it: none, zlib, bz2 or zstd. All else, and every byte
that is written, is Cinder's own. Backups are made one after the other: the choice is the process's.
"""
from oslo_config import cfg

from cinder.backup.drivers import posix
from cinder import interface

CONF = cfg.CONF
NAME = "backup_compression_algorithm"


@interface.backupdriver
class ChosenCompression(posix.PosixBackupDriver):
    def backup(self, backup, volume_file, backup_metadata=True):
        chosen = (backup.metadata or {}).get("compression", CONF[NAME])
        before = CONF[NAME]
        CONF.set_override(NAME, chosen)
        try:
            self.compressor = self._get_compressor(chosen)
            return super().backup(backup, volume_file, backup_metadata)
        finally:
            CONF.set_override(NAME, before)
