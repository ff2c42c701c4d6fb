//! What survives a crash: one file per source, written whole. Never knows what is in it, never decides when to write.
//!
//! A file is written beside its place, flushed, renamed into place, and the directory is flushed: whoever opens it finds one
//! whole write or the one before, wherever the process, or the machine, died. One file per source, because sources have
//! nothing to do with each other: a round writes what it changed, and a file that cannot be read costs one source's past.
//!
//! A file that is torn, foreign, of another source or of a later version is set aside under another name, for people, and
//! the source starts anew: a crash loop would help nobody. An error of the disk itself is an error.
//!
//! # Layout
//!
//! ```text
//! magic 8 | schema u32 | length of the rest u64 | CRC-32 of schema, length and rest u32 | rest: postcard of `Section`
//! ```
//!
//! Integers are little-endian. The schema's number stands for everything behind it, the kept state and the source's memory
//! included. Whoever changes one of those types gives the new form the next number and keeps the old types to read the old
//! number with, or makes the new types read both; a file of each version is a test's fixture for good.
//!
//! - 1: the first one.
//! - 2: results may tell retries and a failure's signature, and there are up to 50 of a row, not 32. Without these they stand
//!   as they did in 1, so the types of 2 read both (`recent`).

use std::fs::{File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

/// What this version writes, and the newest that it reads.
pub const SCHEMA: u32 = 2;

const MAGIC: &[u8; 8] = b"tr-ledgr";
const HEADER: usize = 8 + 4 + 8 + 4;
const LOCK: &str = "lock";

/// The operations that a crash can come between. File names are relative to the ledger's directory.
pub trait Disk: Send + Sync + 'static {
    /// A file's content; `None` if there is no such file.
    ///
    /// # Errors
    /// Of the disk.
    fn read(&self, file: &str) -> io::Result<Option<Vec<u8>>>;
    /// Writes a file, replacing what it held. May be torn by a crash.
    ///
    /// # Errors
    /// Of the disk.
    fn write(&self, file: &str, content: &[u8]) -> io::Result<()>;
    /// Returns when what was written would survive the machine's power.
    ///
    /// # Errors
    /// Of the disk.
    fn sync(&self, file: &str) -> io::Result<()>;
    /// Puts a file in the place of another: the one or the other is there at any moment.
    ///
    /// # Errors
    /// Of the disk.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Returns when renames would survive the machine's power.
    ///
    /// # Errors
    /// Of the disk.
    fn sync_directory(&self) -> io::Result<()>;
}

/// A directory that only this process uses.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Locked for as long as it is open: the system lets go of it however the process ends.
    _lock: File,
}

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It is not there and cannot be made, or nothing can be written in it.
    #[error("state.directory {path}: it cannot be used; expected a directory that this process may write in")]
    Unusable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process uses it.
    #[error("state.directory {path}: another process is using it; expected a directory for each process")]
    InUse {
        /// Which.
        path: PathBuf,
    },
}

impl Directory {
    /// Takes a directory, making it if need be.
    ///
    /// # Errors
    /// It cannot be used.
    pub fn take(path: &Path) -> Result<Self, DirectoryError> {
        let unusable = |source| DirectoryError::Unusable {
            path: path.to_owned(),
            source,
        };
        std::fs::create_dir_all(path).map_err(unusable)?;
        let mut options = File::options();
        let lock = options
            .create(true)
            .write(true)
            .truncate(false)
            .open(path.join(LOCK))
            .map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(DirectoryError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => Err(unusable(source)),
        }
    }
}

impl Disk for Directory {
    fn read(&self, file: &str) -> io::Result<Option<Vec<u8>>> {
        match std::fs::read(self.path.join(file)) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write(&self, file: &str, content: &[u8]) -> io::Result<()> {
        File::create(self.path.join(file))?.write_all(content)
    }

    fn sync(&self, file: &str) -> io::Result<()> {
        File::open(self.path.join(file))?.sync_all()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

/// Which source a file belongs to. One that is read from elsewhere, or is of another kind, has another past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its name: letters, digits and `_ . -`.
    pub name: String,
    /// The platform.
    pub kind: &'static str,
    /// Where it is.
    pub base_url: String,
}

/// One source at one moment: the end of a round, and what was shown since.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// What the store knows.
    pub state: Arc<Vec<u8>>,
    /// What the source itself remembers of the platform.
    pub memory: Arc<Vec<u8>>,
    /// The rows that were shown since.
    pub released: Arc<Vec<u8>>,
}

/// What a ledger has for a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing: it was never written.
    Nothing,
    /// The newest write that was complete.
    Kept(Kept),
    /// Something else. It should be set aside.
    Unreadable(Unreadable),
}

/// What is wrong with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is none of ours.
    #[error("it is not a ledger")]
    Foreign,
    /// It was not written whole, or has changed since.
    #[error("it is torn or damaged")]
    Damaged,
    /// A later version wrote it.
    #[error("a later version wrote it (schema {schema}; this one reads {SCHEMA})")]
    Newer {
        /// The schema.
        schema: u32,
    },
    /// It belongs to another platform.
    #[error("it belongs to a source of another kind or base_url")]
    OtherSource,
}

impl Unreadable {
    /// The word for a label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Foreign => "foreign",
            Self::Damaged => "damaged",
            Self::Newer { .. } => "newer",
            Self::OtherSource => "other_source",
        }
    }
}

/// What stands behind the header.
#[derive(Serialize, Deserialize)]
struct Section<'a> {
    name: &'a str,
    kind: &'a str,
    base_url: &'a str,
    #[serde(serialize_with = "raw")]
    state: &'a [u8],
    #[serde(serialize_with = "raw")]
    memory: &'a [u8],
    #[serde(serialize_with = "raw")]
    released: &'a [u8],
}

/// All at once rather than byte by byte.
fn raw<S: Serializer>(bytes: &&[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

/// The files of all sources.
pub struct Ledger {
    disk: Box<dyn Disk>,
}

impl Ledger {
    /// On this disk.
    #[must_use]
    pub fn new(disk: impl Disk) -> Self {
        Self { disk: Box::new(disk) }
    }

    /// What there is for a source.
    ///
    /// # Errors
    /// The disk cannot be read: nothing is known about what it holds.
    pub fn load(&self, identity: &Identity) -> io::Result<Found> {
        Ok(match self.disk.read(&file(identity))? {
            None => Found::Nothing,
            Some(content) => open(identity, &content).map_or_else(Found::Unreadable, Found::Kept),
        })
    }

    /// Keeps a moment of a source in the place of the one before. Returns when it would survive the machine's power. Gives
    /// the file's size.
    ///
    /// # Errors
    /// The disk's; the moment before is still kept.
    pub fn save(&self, identity: &Identity, kept: &Kept) -> io::Result<usize> {
        let content = seal(identity, kept)?;
        let (place, beside) = (file(identity), format!("{}.new", file(identity)));
        self.disk.write(&beside, &content)?;
        self.disk.sync(&beside)?;
        self.disk.rename(&beside, &place)?;
        self.disk.sync_directory()?;
        Ok(content.len())
    }

    /// Moves a source's file out of the way, for people to look at. `mark` tells it from others that were. Gives its name.
    ///
    /// # Errors
    /// The disk's.
    pub fn set_aside(&self, identity: &Identity, mark: &str) -> io::Result<String> {
        let aside = format!("{}.unreadable-{mark}", file(identity));
        self.disk.rename(&file(identity), &aside)?;
        self.disk.sync_directory()?;
        Ok(aside)
    }
}

/// Every name of a source ends alike, so that none is the name of another file of ours.
fn file(identity: &Identity) -> String {
    format!("{}.ledger", identity.name)
}

fn seal(identity: &Identity, kept: &Kept) -> io::Result<Vec<u8>> {
    let section = Section {
        name: &identity.name,
        kind: identity.kind,
        base_url: &identity.base_url,
        state: &kept.state,
        memory: &kept.memory,
        released: &kept.released,
    };
    let mut content = Vec::with_capacity(HEADER + 1024 + kept.state.len() + kept.memory.len() + kept.released.len());
    content.resize(HEADER, 0);
    let mut content = postcard::to_extend(&section, content).map_err(io::Error::other)?;
    let length = (content.len() - HEADER) as u64;
    content[..8].copy_from_slice(MAGIC);
    content[8..12].copy_from_slice(&SCHEMA.to_le_bytes());
    content[12..20].copy_from_slice(&length.to_le_bytes());
    let sum = checksum(&content);
    content[20..24].copy_from_slice(&sum.to_le_bytes());
    Ok(content)
}

fn checksum(content: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&content[8..20]);
    sum.update(&content[HEADER..]);
    sum.finalize()
}

fn open(identity: &Identity, content: &[u8]) -> Result<Kept, Unreadable> {
    let magic = content.first_chunk::<8>().ok_or(Unreadable::Damaged)?;
    if magic != MAGIC {
        return Err(Unreadable::Foreign);
    }
    let number = |at: usize| content.get(at..at + 4)?.first_chunk().copied().map(u32::from_le_bytes);
    let schema = number(8).ok_or(Unreadable::Damaged)?;
    if schema > SCHEMA {
        return Err(Unreadable::Newer { schema });
    }
    let rest = content.get(HEADER..).ok_or(Unreadable::Damaged)?;
    let length = content[12..20].first_chunk().copied().map(u64::from_le_bytes);
    if length != Some(rest.len() as u64) || number(20) != Some(checksum(content)) {
        return Err(Unreadable::Damaged);
    }
    match schema {
        1 | SCHEMA => {
            let section: Section<'_> = postcard::from_bytes(rest).map_err(|_| Unreadable::Damaged)?;
            if (section.kind, section.base_url) != (identity.kind, &identity.base_url) {
                return Err(Unreadable::OtherSource);
            }
            Ok(Kept {
                state: Arc::new(section.state.to_vec()),
                memory: Arc::new(section.memory.to_vec()),
                released: Arc::new(section.released.to_vec()),
            })
        }
        // Where former schemas will be read and brought to the newest one.
        _ => Err(Unreadable::Damaged),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            name: "shop".to_owned(),
            kind: "empirical",
            base_url: "https://api.example.test/".to_owned(),
        }
    }

    fn kept(text: &str) -> Kept {
        let bytes = |what: &str| Arc::new(format!("{what} {text}").into_bytes());
        Kept {
            state: bytes("state"),
            memory: bytes("memory"),
            released: bytes("released"),
        }
    }

    /// What is found in a file of such content.
    fn found(content: &[u8]) -> Found {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("shop.ledger"), content).unwrap();
        let ledger = Ledger::new(Directory::take(directory.path()).unwrap());
        ledger.load(&identity()).unwrap()
    }

    #[test]
    fn the_newest_moment_is_found_and_nothing_else_lies_about() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("made/on/demand");
        let ledger = Ledger::new(Directory::take(&path).unwrap());
        assert_eq!(ledger.load(&identity()).unwrap(), Found::Nothing);
        for text in ["first", "second", ""] {
            let size = ledger.save(&identity(), &kept(text)).unwrap();
            assert_eq!(size as u64, std::fs::metadata(path.join("shop.ledger")).unwrap().len());
            assert_eq!(ledger.load(&identity()).unwrap(), Found::Kept(kept(text)));
        }
        let mut files: Vec<_> = std::fs::read_dir(&path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        files.sort();
        assert_eq!(files, ["lock", "shop.ledger"]);
    }

    #[test]
    fn a_file_that_is_not_whole_is_never_taken_for_one() {
        let whole = seal(&identity(), &kept("x")).unwrap();
        assert_eq!(found(&whole), Found::Kept(kept("x")));
        for length in 0..whole.len() {
            assert_eq!(
                found(&whole[..length]),
                Found::Unreadable(Unreadable::Damaged),
                "{length}"
            );
        }
        for place in 0..whole.len() {
            for bit in 0..8 {
                let mut damaged = whole.clone();
                damaged[place] ^= 1 << bit;
                assert!(open(&identity(), &damaged).is_err(), "bit {bit} of byte {place}");
            }
        }
        assert_eq!(
            found(&[whole.clone(), vec![0]].concat()),
            Found::Unreadable(Unreadable::Damaged)
        );
    }

    #[test]
    fn what_is_not_ours_is_told_by_its_kind() {
        let check = |content: &[u8], expected: Unreadable| {
            let Found::Unreadable(why) = found(content) else {
                panic!("readable")
            };
            assert_eq!((why, why.label()), (expected, expected.label()));
        };
        check(b"{\"version\": 1, \"sources\": []}", Unreadable::Foreign);
        let mut newer = seal(&identity(), &kept("x")).unwrap();
        newer[8..12].copy_from_slice(&(SCHEMA + 1).to_le_bytes());
        check(&newer, Unreadable::Newer { schema: SCHEMA + 1 });
        let moved = Identity {
            base_url: "https://api.example.org/".to_owned(),
            ..identity()
        };
        check(&seal(&moved, &kept("x")).unwrap(), Unreadable::OtherSource);
        let other = Identity {
            kind: "sample_platform",
            ..identity()
        };
        check(&seal(&other, &kept("x")).unwrap(), Unreadable::OtherSource);
    }

    #[test]
    fn what_is_set_aside_is_kept_under_another_name() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("shop.ledger"), "not a ledger").unwrap();
        let ledger = Ledger::new(Directory::take(directory.path()).unwrap());
        assert_eq!(
            ledger.set_aside(&identity(), "17").unwrap(),
            "shop.ledger.unreadable-17"
        );
        assert_eq!(ledger.load(&identity()).unwrap(), Found::Nothing);
        let aside = std::fs::read_to_string(directory.path().join("shop.ledger.unreadable-17"));
        assert_eq!(aside.unwrap(), "not a ledger");
    }

    #[test]
    fn a_directory_belongs_to_one_process_and_is_free_again_when_that_ends() {
        let directory = tempfile::tempdir().unwrap();
        let first = Directory::take(directory.path()).unwrap();
        let refused = Directory::take(directory.path()).unwrap_err();
        assert!(matches!(refused, DirectoryError::InUse { .. }));
        drop(first);
        Directory::take(directory.path()).unwrap();
    }

    #[test]
    fn a_directory_that_cannot_be_one_is_a_clear_error() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = Directory::take(&file).unwrap_err();
        let expected = "it cannot be used; expected a directory that this process may write in";
        assert_eq!(
            error.to_string(),
            format!("state.directory {}: {expected}", file.display())
        );
    }
}
