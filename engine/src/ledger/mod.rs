//! The byte account: every file and every class of memory, partitioned. Plain figures.
//! Knows classes and sums; knows nothing of how a byte came to be in its class.

pub(crate) mod leaks;
pub(crate) mod prefixes;
pub(crate) mod trend;

/// How the bytes of one file, or of several, divide. All in bytes; the classes sum to `len`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileBytes {
    /// The newest records of keys that are there.
    pub live: u64,
    /// Superseded, deleted and moved records, and records of cleared keyspaces.
    pub dead: u64,
    /// Records whose whole deadline class has passed.
    pub expired: u64,
    /// Records that say a key is gone.
    pub tombstone: u64,
    /// Newest records of their keys whose keys were not looked up in the archives yet: they may
    /// shadow archived ones, which count as live until then.
    pub unresolved: u64,
    /// Newest records of their keys that turned out to be damaged.
    pub damaged: u64,
    /// Headers and footers of files and blocks.
    pub header: u64,
    /// Hash-sorted tables of sealed segments, and dead bitmaps.
    pub trailer: u64,
    /// Bytes between structures.
    pub padding: u64,
    /// Allocated ahead of the tail.
    pub reserved: u64,
    /// What compression saved on records, as a negative part of the sum: stored bytes of the
    /// archive's blocks are `live + dead + expired - saved`.
    pub saved: u64,
    /// Block indexes and tables of archives, and an index image until it has been read.
    pub index: u64,
    /// Filters of archives.
    pub filter: u64,
    /// Dictionaries of archives.
    pub dictionary: u64,
    /// The manifest.
    pub manifest: u64,
    /// The statistics file.
    pub statistics: u64,
    /// The allocated length of the file as the store knows it.
    pub len: u64,
    /// What the file system takes beyond that: `st_blocks` times 512, less `len`.
    pub filesystem: i64,
}

impl FileBytes {
    /// The classes added up; equals `len` in an exact account.
    pub fn sum(&self) -> u64 {
        (self.live
            + self.dead
            + self.expired
            + self.tombstone
            + self.unresolved
            + self.damaged
            + self.header
            + self.trailer
            + self.padding
            + self.reserved
            + self.index
            + self.filter
            + self.dictionary
            + self.manifest
            + self.statistics)
            .saturating_sub(self.saved)
    }

    /// Every class by its name, then what compression saved, then the length: the classes less the
    /// former sum to the latter.
    pub fn classes(&self) -> [(&'static str, u64); 17] {
        [
            ("live", self.live),
            ("dead", self.dead),
            ("expired", self.expired),
            ("tombstone", self.tombstone),
            ("unresolved", self.unresolved),
            ("damaged", self.damaged),
            ("header", self.header),
            ("trailer", self.trailer),
            ("padding", self.padding),
            ("reserved", self.reserved),
            ("index", self.index),
            ("filter", self.filter),
            ("dictionary", self.dictionary),
            ("manifest", self.manifest),
            ("statistics", self.statistics),
            ("saved", self.saved),
            ("len", self.len),
        ]
    }

    /// Adds another file's bytes, class by class.
    pub fn add(&mut self, other: &Self) {
        self.live += other.live;
        self.dead += other.dead;
        self.expired += other.expired;
        self.tombstone += other.tombstone;
        self.unresolved += other.unresolved;
        self.damaged += other.damaged;
        self.header += other.header;
        self.trailer += other.trailer;
        self.padding += other.padding;
        self.reserved += other.reserved;
        self.saved += other.saved;
        self.index += other.index;
        self.filter += other.filter;
        self.dictionary += other.dictionary;
        self.manifest += other.manifest;
        self.statistics += other.statistics;
        self.len += other.len;
        self.filesystem += other.filesystem;
    }
}

/// One file of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileAccount {
    /// Its name in the store's directory, or in the archive directory.
    pub name: String,
    /// How its bytes divide.
    pub bytes: FileBytes,
}

/// Bytes of anonymous memory, by what holds them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryBytes {
    /// The hot tier, charged by page.
    pub hot: u64,
    /// The point index of the warm tier.
    pub index: u64,
    /// What keeps the keys of the warm tier in order.
    pub order: u64,
    /// The version table: where replaced records are that somebody still sees.
    pub versions: u64,
    /// The changes of late, for watchers and transactions.
    pub changes: u64,
    /// Filters, dictionaries and dead bitmaps of archives.
    pub filters: u64,
    /// All of them.
    pub total: u64,
    /// What they may be at most.
    pub budget: u64,
}

/// What the records of one keyspace take, over all tiers, in encoded bytes before compression.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyspaceBytes {
    /// Its name.
    pub name: String,
    /// Live records in the log.
    pub warm: u64,
    /// Live records in archives.
    pub cold: u64,
    /// Those of both that have no deadline.
    pub lasting: u64,
    /// Records in both whose whole deadline class has passed.
    pub expired: u64,
}

/// Where every byte is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ledger {
    /// Segments of the log.
    pub warm: FileBytes,
    /// Archives.
    pub cold: FileBytes,
    /// The manifest, the file of dead bitmaps, and an index image.
    pub other: FileBytes,
    /// Anonymous memory.
    pub memory: MemoryBytes,
    /// Each file for itself.
    pub files: Vec<FileAccount>,
    /// Records by keyspace, sorted by name.
    pub keyspaces: Vec<KeyspaceBytes>,
    /// Bytes on the device of unlinked files that values still hold; in none of the classes above.
    pub unlinked: u64,
}

impl Ledger {
    /// Bytes of all files as the store knows them.
    pub fn disk_len(&self) -> u64 {
        self.warm.len + self.cold.len + self.other.len
    }
}

/// What a recount found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Audit {
    /// Files that were recounted.
    pub files: u64,
    /// Records that were recounted.
    pub records: u64,
    /// Bytes that were recounted.
    pub bytes: u64,
    /// Every line that differs: what, and both figures. Empty in an exact account.
    pub differences: Vec<String>,
    /// Files in the directory that the manifest does not name, the lock file apart.
    pub orphans: Vec<String>,
}

impl Audit {
    /// Whether every line agreed and nothing was orphaned.
    pub fn is_exact(&self) -> bool {
        self.differences.is_empty() && self.orphans.is_empty()
    }
}
