//! Where a running poller is told of another configuration, or to leave. What is told waits until the poller looks: between
//! two requests, or in the middle of a wait. Never interrupts a request: what the platform answers must be obeyed by
//! whoever asks next.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Settings;

/// Another configuration of the same source.
#[derive(Debug)]
pub struct Orders<S, T> {
    /// The pace, from now on.
    pub settings: Settings,
    /// How it is reached, from the next request on; `None`: as before.
    pub transport: Option<T>,
    /// How it is read, from the next round on: a new source, which gets the memory of the one before. `None`: as before.
    pub source: Option<S>,
}

/// The poller's side of it. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Bell(Arc<Ring>);

#[derive(Debug, Default)]
struct Ring {
    rung: Notify,
    left: CancellationToken,
}

impl Bell {
    /// Until there is something to look at.
    pub(super) async fn rung(&self) {
        self.0.rung.notified().await;
    }

    /// Until the poller is to leave.
    pub(super) async fn left(&self) {
        self.0.left.cancelled().await;
    }

    /// Whether it is to leave.
    pub(super) fn has_left(&self) -> bool {
        self.0.left.is_cancelled()
    }
}

/// Where orders for one poller are left. Clones share it.
#[derive(Debug)]
pub struct Desk<S, T> {
    orders: Arc<Mutex<Option<Orders<S, T>>>>,
    bell: Bell,
}

impl<S, T> Clone for Desk<S, T> {
    fn clone(&self) -> Self {
        Self {
            orders: Arc::clone(&self.orders),
            bell: self.bell.clone(),
        }
    }
}

impl<S, T> Desk<S, T> {
    pub(super) fn new() -> Self {
        Self {
            orders: Arc::default(),
            bell: Bell::default(),
        }
    }

    /// Another configuration. What an earlier one has changed and nobody has looked at yet holds where this one says
    /// nothing else.
    pub fn change(&self, mut newer: Orders<S, T>) {
        let mut place = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(older) = place.take() {
            newer.transport = newer.transport.or(older.transport);
            newer.source = newer.source.or(older.source);
        }
        *place = Some(newer);
        drop(place);
        self.bell.0.rung.notify_one();
    }

    /// The source is no longer wanted: the poller ends at the next opportunity.
    pub fn leave(&self) {
        self.bell.0.left.cancel();
    }

    /// Whether it was told to leave.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.bell.has_left()
    }

    pub(super) fn bell(&self) -> &Bell {
        &self.bell
    }

    pub(super) fn take(&self) -> Option<Orders<S, T>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
