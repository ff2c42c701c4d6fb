//! Whether the configuration's files have changed: by their bytes, looked at now and then. That finds what an editor, a
//! configuration manager and Kubernetes' swapped links do alike, on every file system.
//! Never reads what the bytes mean, never waits.

use std::collections::BTreeSet;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read as _;
use std::path::Path;

/// More of a file than this is not looked at: a configuration is far smaller, and so is a list of certificates.
const LOOK_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What the files hold, in a few bytes. A file that cannot be read is something that they hold, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// Of these files, now. The same file named twice counts once, and the order does not matter.
    #[must_use]
    pub fn of<'a>(files: impl IntoIterator<Item = &'a Path>) -> Self {
        let mut hasher = DefaultHasher::new();
        let files: BTreeSet<&Path> = files.into_iter().collect();
        for file in files {
            file.hash(&mut hasher);
            match bytes(file) {
                Ok(bytes) => bytes.hash(&mut hasher),
                Err(kind) => kind.hash(&mut hasher),
            }
        }
        Self(hasher.finish())
    }
}

fn bytes(file: &Path) -> Result<Vec<u8>, std::io::ErrorKind> {
    let mut bytes = Vec::new();
    let metadata = std::fs::metadata(file).map_err(|error| error.kind())?;
    // A pipe would wait for somebody at its other end.
    if !metadata.is_file() {
        return Err(std::io::ErrorKind::InvalidInput);
    }
    let read = File::open(file).and_then(|open| open.take(LOOK_BYTES_MAX).read_to_end(&mut bytes));
    read.map(|_| bytes).map_err(|error| error.kind())
}

/// Decides from what is seen now and then when a change is worth a reload: when two looks in a row have found the same,
/// and it is not what was tried last. Whoever writes in two steps is thus caught between them only if he takes longer
/// than from one look to the next.
#[derive(Debug, PartialEq, Eq)]
pub struct Watch {
    tried: Fingerprint,
    seen: Fingerprint,
}

impl Watch {
    /// This is what has been read, well or badly: it is not worth another try.
    #[must_use]
    pub fn new(tried: Fingerprint) -> Self {
        Self { tried, seen: tried }
    }

    /// What a look has found. True: it is time to read the configuration anew.
    pub fn look(&mut self, found: Fingerprint) -> bool {
        let settled = found == self.seen;
        self.seen = found;
        settled && found != self.tried
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks as letters; `!` after one: it is read now.
    fn check(looks: &str, expected: &str) {
        let print = |letter: char| Fingerprint(letter.into());
        let mut watch = Watch::new(print('a'));
        let mut shown = String::new();
        for letter in looks.chars() {
            shown.push(letter);
            if watch.look(print(letter)) {
                watch = Watch::new(print(letter));
                shown.push('!');
            }
        }
        assert_eq!(shown, expected);
    }

    #[test]
    fn only_what_has_settled_is_read_and_once() {
        check("aaaa", "aaaa");
        check("abbb", "abb!b");
        check("abcdd", "abcdd!");
        check("aba", "aba");
        check("abbaa", "abb!aa!");
        check("b", "b");
        check("bb", "bb!");
    }

    #[test]
    fn a_file_is_its_bytes_wherever_links_lead_and_a_missing_one_is_a_change() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let print = || Fingerprint::of([path("..data/c.yaml").as_path()]);
        std::fs::create_dir(path("1")).unwrap();
        std::fs::create_dir(path("2")).unwrap();
        std::fs::write(path("1/c.yaml"), "old").unwrap();
        std::fs::write(path("2/c.yaml"), "new").unwrap();
        let missing = print();
        std::os::unix::fs::symlink("1", path("..data")).unwrap();
        let old = print();
        assert_ne!(missing, old);
        std::os::unix::fs::symlink("2", path("draft")).unwrap();
        std::fs::rename(path("draft"), path("..data")).unwrap();
        assert_ne!(print(), old);
        std::fs::write(path("2/c.yaml"), "old").unwrap();
        assert_eq!(print(), old, "times and places do not matter");
    }

    #[test]
    fn the_order_of_the_files_does_not_matter_but_which_of_them_holds_what_does() {
        let directory = tempfile::tempdir().unwrap();
        let (a, b) = (directory.path().join("a"), directory.path().join("b"));
        std::fs::write(&a, "1").unwrap();
        std::fs::write(&b, "2").unwrap();
        let print = Fingerprint::of([a.as_path(), &b]);
        assert_eq!(Fingerprint::of([b.as_path(), &a, &a]), print);
        std::fs::write(&a, "2").unwrap();
        std::fs::write(&b, "1").unwrap();
        assert_ne!(Fingerprint::of([a.as_path(), &b]), print);
    }
}
