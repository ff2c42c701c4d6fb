//! The places for connections, and who has to leave when there is none: of the address that holds the most, the connection
//! that has been silent longest. So the newest always gets in, and a crowd from one address displaces itself.
//! Never looks at what a connection says.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// All places.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    held: Mutex<Held>,
    /// Counts what connections do: order is all that is needed of time here.
    clock: AtomicU64,
}

#[derive(Debug, Default)]
struct Held {
    seats: HashMap<u64, Arc<Seat>>,
    of_address: ByAddress,
    next: u64,
}

/// How many of something each address has. An address that has none is not remembered.
#[derive(Debug, Default)]
pub(super) struct ByAddress(HashMap<IpAddr, usize>);

impl ByAddress {
    pub(super) fn count(&self, address: IpAddr) -> usize {
        self.0.get(&address).copied().unwrap_or_default()
    }

    pub(super) fn enter(&mut self, address: IpAddr) {
        *self.0.entry(address).or_default() += 1;
    }

    pub(super) fn leave(&mut self, address: IpAddr) {
        match self.0.get_mut(&address) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.0.remove(&address)),
        }
    }

    fn most(&self) -> usize {
        self.0.values().copied().max().unwrap_or_default()
    }
}

/// One place, as the connection in it and the door see it.
#[derive(Debug)]
pub(super) struct Seat {
    places: Arc<Places>,
    address: IpAddr,
    /// When it last got on: a request came, or a part of an answer was taken.
    last: AtomicU64,
    /// It is somebody else's turn.
    leave: Notify,
    /// Whether the server had to wait for the client since the last request.
    waited: AtomicBool,
}

/// Holds a place until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) seat: Arc<Seat>,
    number: u64,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    pub(super) fn new(count: usize) -> Arc<Self> {
        Arc::new(Self {
            free: Arc::new(Semaphore::new(count)),
            held: Mutex::default(),
            clock: AtomicU64::default(),
        })
    }

    /// A place, at the cost of another connection if it must be. Waits only for that one to be closed.
    pub(super) async fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let permit = match Arc::clone(&self.free).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                self.evict();
                Arc::clone(&self.free).acquire_owned().await.ok()?
            }
        };
        let address = network(address);
        let seat = Arc::new(Seat {
            places: Arc::clone(self),
            address,
            last: AtomicU64::new(self.now()),
            leave: Notify::new(),
            waited: AtomicBool::new(true),
        });
        let mut held = self.held();
        let number = held.next;
        held.next += 1;
        held.seats.insert(number, Arc::clone(&seat));
        held.of_address.enter(address);
        Some(Place {
            seat,
            number,
            _permit: permit,
        })
    }

    fn evict(&self) {
        let held = self.held();
        let most = held.of_address.most();
        let silent_longest = held
            .seats
            .values()
            .filter(|seat| held.of_address.count(seat.address) == most)
            .min_by_key(|seat| seat.last.load(Ordering::Relaxed));
        if let Some(seat) = silent_longest {
            seat.leave.notify_one();
        }
    }

    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.seat.places.held();
        held.seats.remove(&self.number);
        held.of_address.leave(self.seat.address);
    }
}

impl Seat {
    /// The connection gets on.
    pub(super) fn touch(&self) {
        self.last.store(self.places.now(), Ordering::Relaxed);
    }

    /// Waits until the place is wanted for somebody else.
    pub(super) async fn wanted(&self) {
        self.leave.notified().await;
    }

    /// The server has to wait for more from the client.
    pub(super) fn waits(&self) {
        self.waited.store(true, Ordering::Relaxed);
    }

    /// A request has come. Whether it had to be waited for: if not, the client has sent several at once.
    pub(super) fn was_waited_for(&self) -> bool {
        self.waited.swap(false, Ordering::Relaxed)
    }
}

/// What is counted as one client: an IPv4 address, or the network that one IPv6 customer is given.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    async fn is_wanted(place: &Place) -> bool {
        timeout(Duration::from_millis(1), place.seat.wanted()).await.is_ok()
    }

    /// Takes one more than there are, and gives the number of the place that had to be left.
    async fn displaced(held: Vec<Place>, newcomer: IpAddr) -> usize {
        let places = Arc::clone(&held[0].seat.places);
        let newcomer = tokio::spawn(async move { places.take(newcomer).await });
        for _ in 0..1000 {
            for (index, place) in held.iter().enumerate() {
                if is_wanted(place).await {
                    drop(held);
                    newcomer.await.unwrap().unwrap();
                    return index;
                }
            }
        }
        panic!("nobody had to leave");
    }

    async fn full(addresses: &[u8]) -> Vec<Place> {
        let places = Places::new(addresses.len());
        let mut held = Vec::new();
        for last in addresses {
            held.push(places.take(address(*last)).await.unwrap());
        }
        held
    }

    #[tokio::test(start_paused = true)]
    async fn the_connection_that_was_silent_longest_makes_room() {
        let held = full(&[1, 1, 1]).await;
        held[0].seat.touch();
        assert_eq!(displaced(held, address(1)).await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_from_one_address_displaces_itself_alone() {
        let held = full(&[7, 1, 1, 8]).await;
        held[1].seat.touch();
        assert_eq!(displaced(held, address(9)).await, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_is_left_is_free_and_forgotten() {
        let places = Places::new(1);
        for _ in 0..3 {
            drop(places.take(address(1)).await.unwrap());
        }
        assert!(places.held().seats.is_empty() && places.held().of_address.0.is_empty());
    }

    #[test]
    fn one_customer_is_one_address() {
        let check = |text: &str, expected: &str| {
            assert_eq!(network(text.parse().unwrap()).to_string(), expected);
        };
        check("192.0.2.1", "192.0.2.1");
        check("::ffff:192.0.2.1", "192.0.2.1");
        check("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::");
    }
}
