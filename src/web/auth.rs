//! Passwords. Whoever has been let in once is let in again without work; everybody else costs one bcrypt, known name or not,
//! and these are done one after the other, away from the threads that serve.
//! Never keeps a password: what was accepted is remembered as a digest.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use ring::digest::{SHA256, digest};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::places::ByAddress;

/// Passwords that are checked at a time. One core is the most that guessing can take.
const CHECKS_MAX: usize = 1;

/// Passwords that wait to be checked: with a usual cost of 10, a few seconds' worth.
const WAITING_MAX: usize = 64;

/// The same for one address, so that one client does not fill the queue.
const WAITING_OF_ADDRESS_MAX: usize = 8;

/// What to do with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Welcome,
    Refused,
    /// Too many passwords wait to be checked.
    Busy,
}

/// Who may come in.
#[derive(Debug, Default)]
pub(super) struct Users {
    by_name: BTreeMap<String, User>,
    /// What an unknown user's password is compared with: as much work as a known one's.
    decoy: String,
}

#[derive(Debug)]
struct User {
    hash: String,
    /// The digest of the password that was right. There is one in practice, so floods of wrong ones cannot displace it.
    accepted: Mutex<Option<[u8; 32]>>,
}

impl User {
    fn accepted(&self) -> Option<[u8; 32]> {
        *self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(&self, digest: Option<[u8; 32]>) {
        *self.accepted.lock().unwrap_or_else(PoisonError::into_inner) = digest;
    }

    /// The hash has a salt of its own, so equal passwords of two users do not look equal.
    fn digest(&self, password: &[u8]) -> [u8; 32] {
        let text = [self.hash.as_bytes(), b"\0", password].concat();
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, &text).as_ref());
        bytes
    }
}

impl Users {
    /// What `former` has accepted stays accepted where name and hash are the same.
    pub(super) fn new(hashes: BTreeMap<String, String>, former: Option<&Self>) -> Self {
        let cost = hashes.values().filter_map(|hash| hash.get(4..6)).max().unwrap_or("10");
        // A real hash of the smallest cost, with the wanted cost in its place.
        let decoy = bcrypt::hash_with_salt("", 4, *b"no such user 123").map(|parts| parts.to_string());
        let decoy = decoy.map(|decoy| format!("$2b${cost}{}", decoy.get(6..).unwrap_or_default()));
        let user = |(name, hash): (String, String)| {
            let before = former.and_then(|former| former.by_name.get(&name));
            let accepted = before.filter(|before| before.hash == hash).and_then(User::accepted);
            let accepted = Mutex::new(accepted);
            (name, User { hash, accepted })
        };
        Self {
            by_name: hashes.into_iter().map(user).collect(),
            decoy: decoy.unwrap_or_default(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

/// The queue of passwords to be checked.
#[derive(Debug)]
pub(super) struct Checks {
    turns: Arc<Semaphore>,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    all: usize,
    of_address: ByAddress,
}

impl Default for Checks {
    fn default() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(CHECKS_MAX)),
            waiting: Arc::default(),
        }
    }
}

impl Checks {
    /// Whether these headers open the door.
    pub(super) async fn verdict(&self, users: &Arc<Users>, headers: &HeaderMap, address: IpAddr) -> Verdict {
        if users.is_empty() {
            return Verdict::Welcome;
        }
        let Some((name, password)) = credentials(headers) else {
            return Verdict::Refused;
        };
        let known = users.by_name.get(&name);
        let digest = known.map(|user| user.digest(&password));
        if let (Some(user), Some(digest)) = (known, &digest)
            && user.accepted().is_some_and(|accepted| same(&accepted, digest))
        {
            return Verdict::Welcome;
        }
        let Some(place) = Place::take(&self.waiting, address) else {
            return Verdict::Busy;
        };
        let hash = known.map_or_else(|| users.decoy.clone(), |user| user.hash.clone());
        // The semaphore is never closed.
        let Ok(turn) = Arc::clone(&self.turns).acquire_owned().await else {
            return Verdict::Busy;
        };
        // Somebody before us may have brought the same password.
        if let (Some(user), Some(digest)) = (known, &digest)
            && user.accepted().is_some_and(|accepted| same(&accepted, digest))
        {
            return Verdict::Welcome;
        }
        // A client that goes away does not stop the work, so the work keeps its place until it is done.
        let check = spawn_blocking(move || {
            let is_right = bcrypt::verify(&password, &hash).unwrap_or(false);
            drop((turn, place));
            is_right
        });
        let is_right = check.await;
        match known {
            Some(user) if is_right.unwrap_or(false) => {
                user.accept(digest);
                Verdict::Welcome
            }
            _ => Verdict::Refused,
        }
    }
}

/// One place in the queue.
struct Place {
    waiting: Arc<Mutex<Waiting>>,
    address: IpAddr,
}

impl Place {
    fn take(waiting: &Arc<Mutex<Waiting>>, address: IpAddr) -> Option<Self> {
        let mut queue = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.all >= WAITING_MAX || queue.of_address.count(address) >= WAITING_OF_ADDRESS_MAX {
            return None;
        }
        queue.all += 1;
        queue.of_address.enter(address);
        let waiting = Arc::clone(waiting);
        Some(Self { waiting, address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut queue = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        queue.all -= 1;
        queue.of_address.leave(self.address);
    }
}

/// The user's name and password of an `Authorization` header. The password is whatever bytes the client sent.
pub(crate) fn credentials(headers: &HeaderMap) -> Option<(String, Vec<u8>)> {
    let (scheme, encoded) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = STANDARD.decode(encoded).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let name = String::from_utf8(decoded[..colon].to_vec()).ok()?;
    Some((name, decoded[colon + 1..].to_vec()))
}

/// Compares without stopping at the first difference.
fn same(left: &[u8; 32], right: &[u8; 32]) -> bool {
    left.iter().zip(right).fold(0, |seen, (a, b)| seen | (a ^ b)) == 0
}
