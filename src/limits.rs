//! Every cap on what an image may ask for, with its reason. A cap is checked before anything is allocated or derived;
//! what is over it is refused with the number that was asked for, and never clamped.

use std::time::Duration;

/// LUKS2: the largest header copy, binary header and JSON area together (luks2_disk_metadata.c).
pub const LUKS2_HDR_SIZE_MAX: u64 = 0x40_0000;
/// LUKS2: the smallest header copy.
pub const LUKS2_HDR_SIZE_MIN: u64 = 0x4000;
/// LUKS2: the largest keyslots area (`LUKS2_MAX_KEYSLOTS_SIZE`).
pub const LUKS2_KEYSLOTS_SIZE_MAX: u64 = 128 << 20;
/// The largest header, with its keyslots, that is copied: the largest of LUKS2. LUKS1's keyslots may lie anywhere.
pub const HEADER_BACKUP_MAX: u64 = 136 << 20;
/// How deep JSON may nest: json-c's own default, so that what cryptsetup reads is read.
pub const JSON_DEPTH_MAX: usize = 32;
/// How many values the JSON area may hold: a 4 MiB area of `[0,0,…` would otherwise become a hundred times its size.
pub const JSON_VALUES_MAX: usize = 65_536;
/// The largest volume key: four times the largest that any cipher of dm-crypt takes (`LUKS_MAX_KEY` is 512 bytes too).
pub const KEY_SIZE_MAX: u32 = 512;
/// How many keyslots are tried, by their numbers from 0 on: cryptsetup opens no others (`LUKS2_KEYSLOTS_MAX`), and each
/// that is tried may be measured before it counts against the time limit.
pub const KEYSLOTS_MAX: u32 = 32;
/// LUKS has 4000 stripes, whatever a header says (`LUKS_STRIPES`).
pub const STRIPES: u32 = 4000;
/// The largest block that a reencryption takes one checksum of. cryptsetup takes the largest of the two encryption
/// sectors and the device's logical block, which Linux has up to 64 KiB.
pub const REENCRYPT_BLOCK_MAX: u64 = 1 << 20;
/// The largest passphrase or key file, as cryptsetup reads it (`DEFAULT_KEYFILE_SIZE_MAXKB`).
pub const KEYFILE_SIZE_MAX: usize = 8 << 20;
/// A saved key is taken for text up to this size: the longest volume key as hex in a table is not a tenth of it.
pub const KEY_TEXT_MAX: usize = 64 << 10;
/// How many forms of a saved key are tried, the likeliest first: each costs a key derivation for each keyslot. The most
/// that a text of several lines gives is fewer.
pub const KEY_FORMS_MAX: usize = 64;
/// The most lanes Argon2 may ask for: one thread each. cryptsetup writes 4 at most.
pub const ARGON2_LANES_MAX: u32 = 64;
/// The largest disk that a container may declare: VHDX's own limit, and larger than any volume of OpenStack. A few
/// kilobytes of qcow2 can declare petabytes of zeroes, which would be written out at the speed of the machine.
pub const CONTAINER_SIZE_MAX: u64 = 64 << 40;
/// How many runs of clusters `inspect` follows to see whether an image that encrypts its clusters is whole: enough for
/// 50 TB that were written in order, and less than a second of work.
pub const CONTAINER_RUNS_MAX: u64 = 100_000;
/// Disks, partitions, arrays and volumes that a scan goes through for the containers that they lead to.
pub const LAYER_WAYS_MAX: usize = 256;
/// How many layers may lie on each other between a disk and its container. People have three: a partition, an array, a
/// volume.
pub const LAYERS_DEPTH_MAX: usize = 8;
/// How many partitions are looked at, in tables within partitions and volumes, to see whether a disk within a disk leads to
/// LUKS: each look is some reads.
pub const NESTED_LOOKS_MAX: usize = 512;
/// Runs that a file lists one after the other, as Android sparse images, `rbd export` and the maps of AFF4 do: 40 MiB of
/// memory at most.
pub const FORMAT_RUNS_MAX: usize = 500_000;
/// Records of an `rbd export` that are read. One of a terabyte in objects of 4 MiB has some hundred thousand.
pub const RBD_RECORDS_MAX: u64 = 4_000_000;
/// A container may declare a disk of this size however small its file is: a volume that was made but hardly written to.
pub const CONTAINER_SPARSE_SIZE: u64 = 1 << 40;
/// For each byte of its file, a container may declare this many more, up to [`CONTAINER_SIZE_MAX`]. Ciphertext does not
/// compress, so an image of a LUKS disk is not much smaller than what was ever written to it.
pub const CONTAINER_SPARSE_RATIO: u64 = 1000;
/// qcow2: the largest L1 table (`QCOW_MAX_L1_SIZE`).
pub const QCOW2_L1_SIZE_MAX: u64 = 32 << 20;
/// The largest unit that a container may keep compressed: qcow2's largest cluster. EWF chunks and VMDK grains are
/// tens of kilobytes. Each reading thread holds one unit and its compressed form.
pub const CONTAINER_UNIT_MAX: u64 = 2 << 20;
/// The memory in bytes that one container's cache of tables takes, and again that of unpacked units.
pub const CONTAINER_CACHE: u64 = 16 << 20;
/// zstd: the largest window, as RFC 8878 (3.1.1.1.2) asks decoders to have; QEMU's is at most a cluster.
pub const ZSTD_WINDOW_MAX: u64 = 8 << 20;
/// VMDK: the largest embedded descriptor. VMware's are under a kilobyte.
pub const VMDK_DESCRIPTOR_MAX: u64 = 1 << 20;
/// VMDK: the most extents of a descriptor, each of which is an open file. In extents of 2 GiB that is 8 TiB.
pub const VMDK_EXTENTS_MAX: usize = 4096;
/// The most pieces of an image that was cut, each of which is an open file.
pub const SPLIT_PIECES_MAX: usize = 16_384;
/// How many images may lie on top of each other: each has its own caches of [`CONTAINER_CACHE`] bytes.
pub const CONTAINER_PARENTS_MAX: usize = 32;
/// qcow2: the most internal snapshots (`QCOW_MAX_SNAPSHOTS`).
pub const QCOW2_SNAPSHOTS_MAX: u32 = 65_536;
/// qcow2: the most bytes of the table of internal snapshots: QEMU allows 64 MiB, a snapshot takes about 60 bytes.
pub const QCOW2_SNAPSHOTS_SIZE_MAX: u64 = 16 << 20;
/// qcow2: the most extra data of an internal snapshot (`QCOW_MAX_SNAPSHOT_EXTRA_DATA`).
pub const QCOW2_SNAPSHOT_EXTRA_MAX: u32 = 1024;
/// qcow2: the most clusters of a file whose reference counts are checked: 64 TiB in clusters of 64 KiB.
pub const QCOW2_CHECK_CLUSTERS_MAX: u64 = 1 << 30;
/// qcow2: the most bytes of tables that a check of the reference counts reads, those of all snapshots together: some seconds.
pub const QCOW2_CHECK_TABLES_MAX: u64 = 8 << 30;
/// qcow2: the largest table of reference counts (`QCOW_MAX_REFTABLE_SIZE`).
pub const QCOW2_REFCOUNT_TABLE_MAX: u64 = 8 << 20;
/// VHDX: the largest item that says what the parent is. Hyper-V's has some hundred bytes.
pub const VHDX_LOCATOR_MAX: u32 = 64 << 10;
/// VHDX: the largest log that is looked through for entries. Hyper-V's has 1 MiB.
pub const VHDX_LOG_MAX: u64 = 256 << 20;
/// VHDX: the most changes of the file that its log has: those of a log of 1 GiB in sectors, in some megabytes of memory.
pub const VHDX_LOG_CHANGES_MAX: usize = 1 << 18;
/// EWF: the most sections in all segment files: at EnCase's 16,375 chunks a table, enough for 60 TiB.
pub const EWF_SECTIONS_MAX: usize = 500_000;
/// EWF of version 2: the largest of the texts that say what the image is of. EnCase's have some hundred bytes and the
/// examiner's notes.
pub const EWF2_TEXT_MAX: u64 = 1 << 20;
/// AFF4: the most members of an archive's directory, which is never in memory as a whole. Of 32 TiB there are two million.
pub const AFF4_MEMBERS_MAX: u64 = 4_000_000;
/// AFF4: the most bevies of all streams of a disk: enough for 30 TiB at 64 MiB each, in 32 MiB of memory.
pub const AFF4_BEVIES_MAX: u64 = 500_000;
/// AFF4: the largest index of a bevy, as it is stored and unpacked: 87,000 chunks. Writers put 2048 in one.
pub const AFF4_INDEX_MAX: u64 = 1 << 20;
/// AFF4: the largest text, `information.turtle` before all. That of a disk has some kilobytes.
pub const AFF4_TEXT_MAX: u64 = 8 << 20;
/// AFF4: the longest name in `information.turtle`, with its prefix.
pub const AFF4_NAME_MAX: usize = 1024;
/// AFF4: the most things that `information.turtle` may describe: a disk's describes a dozen.
pub const AFF4_THINGS_MAX: usize = 4096;
/// AFF4: the most streams that a map may point into. Each stripe of an image has one.
pub const AFF4_TARGETS_MAX: usize = 256;
/// GPT: the largest array of partition entries. Linux refuses more than it can `kmalloc`.
pub const GPT_ENTRIES_SIZE_MAX: u64 = 4 << 20;
/// MBR: the most links of the chain of logical partitions. Linux numbers at most 256 partitions of a disk.
pub const MBR_LOGICAL_MAX: usize = 252;
/// md: the most members of an array: as many as a superblock of 4096 bytes has roles for.
pub const MD_MEMBERS_MAX: usize = 1920;
/// md: the bytes of a superblock, all versions; the kernel reads no more.
pub const MD_SUPERBLOCK_SIZE: usize = 4096;
/// md: the largest list of bad blocks. The kernel keeps it in one page.
pub const MD_BAD_BLOCKS_SIZE_MAX: usize = 4096;
/// LVM2: the largest text of metadata. LVM gives it 512 KiB unless it is told otherwise; thousands of volumes have a few
/// megabytes.
pub const LVM_TEXT_SIZE_MAX: u64 = 16 << 20;
/// LVM2: how deep sections of metadata may nest. LVM's own nest five deep.
pub const LVM_TEXT_DEPTH_MAX: usize = 16;
/// LVM2: how many values the metadata may hold, each of which takes more memory than it has text. A volume has about 20.
pub const LVM_TEXT_VALUES_MAX: usize = 262_144;
/// LVM2: how many legs or stripes a segment may have (`MAX_STRIPES`; RAID has 64).
pub const LVM_AREAS_MAX: u64 = 128;
/// LVM2: how many volumes may lie on each other. A thin volume over a RAID has four.
pub const LVM_DEPTH_MAX: usize = 16;
/// LVM2: the largest ring of metadata that is looked through for older versions. LVM makes it 1 MiB, and its text at most
/// half of it.
pub const LVM_RING_MAX: u64 = 16 << 20;
/// LVM2: how many older versions of a group's metadata a report lists, the newest first; those beyond are counted.
pub const LVM_VERSIONS_MAX: usize = 64;
/// LVM2: how many exceptions of a snapshot are kept in memory, 16 bytes each: 8 GiB in the usual chunks of 4 KiB.
pub const LVM_EXCEPTIONS_MAX: usize = 2_097_152;
/// dm-thin: how deep its trees may be. Their nodes have at least 84 entries when they are full, so that eight levels map
/// more than any disk.
pub const THIN_DEPTH_MAX: usize = 16;
/// Inside: the most bytes of a plaintext that a quick look reads, its partitions and volumes among them. An ext4 of a
/// terabyte takes half a megabyte, a disk with a dozen partitions of all sorts some megabytes.
pub const INSIDE_READ_MAX: u64 = 64 << 20;
/// Inside: the most bytes of one table that a quick look goes through: the group descriptors of an ext4 of 8 TiB.
pub const INSIDE_TABLE_MAX: u64 = 4 << 20;
/// Inside: how many spare copies of one structure are compared. An ext4 of a petabyte has 32.
pub const INSIDE_COPIES_MAX: usize = 32;
/// Inside: how many partitions of a table, or volumes of a group, are looked into.
pub const INSIDE_PARTS_MAX: usize = 64;
/// Inside: how much of the start of a plaintext that comes through a pipe is looked at. It is kept in memory until it is
/// written; all superblocks that are not at an end lie in it.
pub const INSIDE_PIPE_REACH: u64 = 256 << 10;
/// Inside: how deep: partitions, volumes on one of them, and what is in a volume.
pub const INSIDE_DEPTH_MAX: usize = 3;
/// Inside: how many findings are listed of one file system; those beyond are counted.
pub const INSIDE_FINDINGS_MAX: usize = 64;
/// Inside: how many times the bytes of a disk a full look may read. Each structure is read once or twice, and data once.
pub const INSIDE_FULL_READS: u64 = 4;
/// Inside: the bytes of a bitmap of all blocks in use, for what is claimed twice: 4 TiB in blocks of 4 KiB.
pub const INSIDE_CLAIMS_MAX: usize = 128 << 20;
/// Inside: how many inodes are kept in memory to count their links, 8 bytes each.
pub const INSIDE_INODES_MAX: usize = 8 << 20;
/// Inside: how many blocks of directories are remembered, to be read in their order on the disk, 24 bytes each; 4 GiB of
/// directories.
pub const INSIDE_DIRECTORIES_MAX: usize = 1 << 20;
/// Inside: how many blocks that a journal replaces are kept: as many as the largest that mkfs makes has.
pub const INSIDE_JOURNAL_MAX: usize = 1 << 20;
/// Inside: how many stripes of chunks of a btrfs are kept, 16 bytes each: those of a petabyte in chunks of 1 GiB.
pub const INSIDE_CHUNKS_MAX: usize = 1 << 20;
/// Inside: how many extents of a btrfs are kept, with who has them, 32 and 24 bytes each, and as many uses of 48 bytes.
pub const INSIDE_EXTENTS_MAX: usize = 1 << 20;
/// Inside: how many directories lie above a file whose path is named.
pub const INSIDE_PATH_DEPTH_MAX: usize = 64;
/// Reader: the longest name in a directory, which is the kernel's (`NAME_MAX`).
pub const READER_NAME_MAX: usize = 255;
/// Reader: the longest path, which is the kernel's (`PATH_MAX`).
pub const READER_PATH_MAX: usize = 4096;
/// Reader: the longest target of a symbolic link, which is the kernel's.
pub const READER_LINK_MAX: usize = 4096;
/// Bytes of the extended attributes of one file. The kernel takes 64 KiB of each.
pub const READER_XATTRS_MAX: usize = 256 << 10;
/// Reader: how many links a path may lead through, which is the kernel's (`MAXSYMLINKS`).
pub const READER_LINKS_MAX: usize = 40;
/// Reader: how many directories may lie in each other.
pub const READER_DEPTH_MAX: usize = 256;
/// Reader: how many entries a directory may have.
pub const READER_ENTRIES_MAX: usize = 1 << 20;
/// Reader: how many entries of directories in each other are held in memory on a walk.
pub const READER_HELD_MAX: usize = 4 << 20;
/// Reader: how many directories a walk goes into.
pub const READER_DIRECTORIES_MAX: u64 = 16 << 20;
/// Reader: the longest file that is read. One with holes may be longer than its disk, and one that is not all there has any
/// length.
pub const READER_FILE_MAX: u64 = 16 << 40;
/// Reader: the longest file that is read as a whole, where its reader knows no other way: one that NTFS compresses.
pub const READER_WHOLE_MAX: u64 = 64 << 20;
/// Reader: in how many pieces a file may lie.
pub const READER_EXTENTS_MAX: usize = 1 << 20;
/// Reader: how many paths are remembered, with what they lead to.
pub const READER_KNOWN_MAX: usize = 1 << 16;
/// Reader: the bytes that one step of a reader may read: the listing of a directory, a mebibyte of a file.
pub const READER_OPERATION_BYTES: u64 = 4 << 30;
/// Reader: the reads that one step of a reader may make.
pub const READER_OPERATION_READS: u64 = 4 << 20;
/// Reader: how many blocks of 64 KiB are kept in memory.
pub const READER_CACHE_BLOCKS: usize = 64;
/// Reader: the most bytes that are read or given at once.
pub const READER_PIECE: usize = 1 << 20;
/// Reader: the longest message between the two processes.
pub const READER_FRAME_MAX: usize = 4 << 20;
/// Reader: the memory that the process of a reader may take beyond what it begins with.
pub const READER_MEMORY_MAX: u64 = 256 << 20;
/// Reader: for how many seconds the process of a reader may neither answer nor read.
pub const READER_SECONDS_MAX: u64 = 60;
/// Verify: how many findings of one sort are listed; those beyond are counted.
pub const VERIFY_FINDINGS_MAX: usize = 64;
/// Verify: how many ranges of unreadable or differing bytes are kept, the lowest; those beyond are counted.
pub const VERIFY_RANGES_MAX: usize = 4096;
/// Map: how many cells the picture of an image or a plaintext has, a character each.
pub const MAP_CELLS_MAX: u64 = 1024;
/// Verify: the largest report that is read back. One with all the findings that are listed has some hundred kilobytes.
pub const VERIFY_REPORT_MAX: u64 = 16 << 20;
/// Verify: the largest file of a policy.
pub const VERIFY_POLICY_MAX: u64 = 1 << 20;
/// Verify: the largest list of images: a million paths of 64 bytes.
pub const VERIFY_LIST_MAX: u64 = 64 << 20;
/// Verify: the largest manifest of hashes: half a million files.
pub const VERIFY_MANIFEST_MAX: u64 = 64 << 20;
/// Verify: the longest text of a package database that is read, and what one of its texts may be unpacked to. The status of
/// dpkg has some megabytes on the largest systems.
pub const VERIFY_PACKAGES_TEXT_MAX: u64 = 64 << 20;
/// Verify: how often as many bytes as the plaintext has may be read of files in it: files with holes, or that btrfs compresses,
/// have more than there is room for, and databases may name one file again and again.
pub const VERIFY_FILES_TIMES: u64 = 64;
/// dm-integrity: the largest journal that is looked through. The kernel makes at most 64 MiB unless it is told
/// otherwise (`DEFAULT_MAX_JOURNAL_SECTORS`), and cryptsetup has no option for LUKS2. One of this size has at most a
/// million entries, of which tens of bytes are kept.
pub const INTEGRITY_JOURNAL_MAX: u64 = 512 << 20;
/// The most runs of bad sectors that are listed; those beyond are only counted.
pub const BAD_SECTOR_RUNS_MAX: usize = 65_536;
/// The largest mapfile of ddrescue, in bytes: a line of 30 for each block.
pub const RESCUE_MAP_MAX: u64 = 64 << 20;

/// Scan: how many header copies are reported, and again how many that are not good, the first ones on the disk; the rest
/// is counted. A file can be full of them.
pub const SCAN_COPIES_MAX: usize = 1000;
/// Scan: the bytes of headers that are verified for each 4 MiB that are read, the smallest headers first. Copies that do
/// not overlap never come near it; without it, a file full of magics would have every byte hashed 8192 times.
pub const SCAN_CHECK_MAX: u64 = 8 << 20;
/// Scan: the bytes of headers that are opened once they were found, the first on the disk: 4096 containers of the usual
/// size. One after the other is in memory; of what they say, their names are kept.
pub const SCAN_OPEN_MAX: u64 = 64 << 20;
/// Scan: headers up to this size are verified by all threads at the same time, larger ones by one at a time: parsed, a
/// header takes ten times its size and more. cryptsetup makes headers of 16 KiB unless it is told otherwise.
pub const SCAN_HEADER_SHARED: u64 = 64 << 10;
/// Scan: how many failed reads are tried again in smaller pieces, so that a bad sector hides nothing but itself. 4 MiB
/// with bad sectors all over take 2047.
pub const SCAN_RETRIES_MAX: u64 = 100_000;

/// Backup: the largest `backup.json`. Glance allows an image 128 properties of at most 64 KiB unless it is told otherwise.
pub const BACKUP_JSON_MAX: u64 = 16 << 20;

/// Cinder backups: the deepest folder that is looked into. An object store's names make four.
pub const CINDER_DEPTH_MAX: usize = 16;
/// Cinder backups: how many names are looked at in a directory: a share of 8000 backups of 500 objects each.
pub const CINDER_NAMES_MAX: usize = 4_000_000;
/// Cinder backups: how many backups lie over each other. Who makes one a day makes a full one now and then.
pub const CINDER_CHAIN_MAX: usize = 1000;
/// Cinder backups: the objects of a chain, 48 bytes of memory each. A volume of 64 TiB has 1.3 million of Swift's 50 MB.
pub const CINDER_OBJECTS_MAX: usize = 2_000_000;
/// Cinder backups: the part of the volume that one object holds. The posix driver's is 1,999,994,880 bytes.
pub const CINDER_OBJECT_MAX: u64 = 2 << 30;
/// Cinder backups: the largest text in a description, which is a stream of any length. `volume_meta` has some kilobytes.
pub const CINDER_TEXT_MAX: usize = 4 << 20;
/// Cinder backups: the block that one SHA-256 is of. The drivers' is 32 KiB.
pub const CINDER_BLOCK_MAX: u64 = 64 << 20;
/// Cinder backups: damaged objects that are kept to be sorted and named. The others are counted.
pub const CINDER_DAMAGED_MAX: usize = 1000;
/// Cinder backups: the memory for what was decompressed.
pub const CINDER_CACHE: u64 = 64 << 20;
/// Cinder backups: objects that are being decompressed at a time. bz2 takes 4 MB for each, and zstd up to 8.
pub const CINDER_STREAMS_MAX: usize = 4;

/// OpenStack: how long something that a service makes or deletes is waited for. A volume of terabytes takes Cinder hours.
pub const CLOUD_WAIT_MAX: Duration = Duration::from_secs(86_400);

/// NBD: how long a client may take from connecting to its first command. A client that opens a connection and falls
/// silent would hold a slot for ever (CVE-2024-7409); libnbd and QEMU need some milliseconds.
pub const NBD_HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// NBD: how many options a client may send. QEMU and libnbd send fewer than ten; nbdkit allows 32.
pub const NBD_OPTIONS_MAX: u32 = 128;
/// NBD: the longest string: an export's name, a description, a query (the protocol's own limit).
pub const NBD_STRING_MAX: usize = 4096;
/// NBD: the most option data that is read into memory: room for a name and a dozen full-length queries.
pub const NBD_OPTION_DATA_MAX: u32 = 64 << 10;
/// NBD: option data above [`NBD_OPTION_DATA_MAX`] and up to this is read and dropped, so that the client can be told;
/// a client that announces more is disconnected.
pub const NBD_OPTION_SKIP_MAX: u32 = 1 << 20;
/// NBD: the largest read, and the largest payload that the export advertises (what the protocol recommends).
pub const NBD_PAYLOAD_MAX: u32 = 32 << 20;
/// NBD: the most extents in one answer to a block status request. A client asks again for the rest.
pub const NBD_EXTENTS_MAX: usize = 1024;
/// NBD: the default of `--max-connections`: one thread and 300 KiB each.
pub const NBD_CONNECTIONS: usize = 256;
/// NBD: the default of `--max-per-address`: one machine must not take all places. QEMU and nbd-client open 16 at most
/// unless they are told otherwise.
pub const NBD_CONNECTIONS_PER_ADDRESS: usize = 64;
/// NBD: where no place is left for a new client, one that was idle for this long makes room. Without a new client it may
/// be idle for ever, unless `--idle-timeout` says otherwise.
pub const NBD_IDLE_YIELD: Duration = Duration::from_secs(60);
/// NBD: the default of `--threads`, the most that work for one connection. It is what nbdkit has.
pub const NBD_THREADS: usize = 16;
/// NBD: the most threads of all connections together, besides the one that each connection has.
pub const NBD_HELPERS_MAX: usize = 512;
/// NBD: the most memory in bytes that whole replies above the size of a piece may hold, all connections together.
/// What is over it is sent piece by piece.
pub const NBD_WHOLE_REPLIES_MAX: usize = 256 << 20;
/// NBD: how long outstanding requests may take once the server was told to stop.
/// Service managers kill after ten seconds and more.
pub const NBD_SHUTDOWN_TIME: Duration = Duration::from_secs(5);
/// NBD: the most sockets that are taken over by socket activation.
pub const NBD_ACTIVATED_MAX: usize = 64;

/// OpenStack: the largest answer that is read into memory. An image with all the properties that Glance allows has some
/// hundred kilobytes.
pub const CLOUD_ANSWER_MAX: usize = 8 << 20;
/// OpenStack: the largest payload of a secret. Barbican itself keeps at most 20000 bytes unless it is told otherwise.
pub const CLOUD_SECRET_MAX: usize = 64 << 10;
/// OpenStack: how long a service may take to answer, and how long a download may stand still. Load balancers cut at 60
/// seconds; Glance may take longer to open an image in a slow store.
pub const CLOUD_SILENCE: Duration = Duration::from_secs(120);
/// OpenStack: the longest wait that a service may ask for with `Retry-After`; what is over it is waited for as this.
pub const CLOUD_RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// OpenStack: how many snapshots of a server's image are listed. Nova attaches at most 26 volumes of most kinds.
pub const CLOUD_SNAPSHOTS_MAX: usize = 64;
/// OpenStack: pieces of a download that may wait for each of the threads that take them. A piece is what one read of the
/// connection gives, at most 408 KiB.
pub const CLOUD_PIECES_MAX: usize = 32;
/// OpenStack: the bytes of a part, where an image comes by several connections at once.
pub const CLOUD_PART: u64 = 8 << 20;
/// OpenStack: the parts that are under way at once; they are kept in memory until those before them are there.
pub const CLOUD_PARTS_MAX: usize = 4;

/// The limits that a caller may set.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The most memory in bytes that a key derivation may take (`--max-kdf-memory`).
    pub kdf_memory: u64,
    /// The time that all key derivations of one unlock may take together (`--max-kdf-time`).
    pub kdf_time: Duration,
}

/// Bytes of memory that the machine has.
#[cfg(feature = "unlock")]
pub(crate) fn memory() -> u64 {
    let info = rustix::system::sysinfo();
    // On machines of 32 bits these fields are narrower.
    #[allow(clippy::useless_conversion)]
    let total = u64::from(info.totalram);
    total.saturating_mul(info.mem_unit.into())
}

impl Limits {
    /// 4 GiB: what cryptsetup itself caps Argon2 at (`DEFAULT_LUKS2_MEMORY_KB` may be set up to it).
    pub const KDF_MEMORY: u64 = 4 << 30;
    /// Ten minutes: three hundred times what cryptsetup aims at when it makes a keyslot.
    pub const KDF_TIME: Duration = Duration::from_secs(600);

    /// The defaults on this machine.
    #[cfg(feature = "unlock")]
    pub fn for_this_machine() -> Self {
        Self::for_memory(memory())
    }

    /// The defaults on a machine with `memory` bytes: no key derivation takes more than three quarters of it.
    pub fn for_memory(memory: u64) -> Self {
        Self { kdf_memory: Self::KDF_MEMORY.min(memory / 4 * 3), kdf_time: Self::KDF_TIME }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { kdf_memory: Self::KDF_MEMORY, kdf_time: Self::KDF_TIME }
    }
}
