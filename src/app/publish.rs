//! The one task that owns the store: takes updates, publishes rendered snapshots, lets held counts go after a scrape.
//! Never polls, never serves.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, mpsc};

use crate::metrics::own::SourceOwn;
use crate::metrics::render::{Rendered, Renderer, render};
use crate::poll::Message;
use crate::store::{Snapshot, SourceSnapshot, Store};

/// What scrapes read, and how they tell that they have read it.
pub(super) struct Publication {
    pub(super) rendered: ArcSwap<Rendered>,
    scraped: AtomicU64,
    was_scraped: Notify,
}

impl Default for Publication {
    fn default() -> Self {
        Self {
            rendered: ArcSwap::from_pointee(render(&Snapshot::default())),
            scraped: AtomicU64::new(0),
            was_scraped: Notify::new(),
        }
    }
}

impl Publication {
    /// A scrape has taken this generation.
    pub(super) fn scraped(&self, generation: u64) {
        self.scraped.fetch_max(generation, Ordering::Relaxed);
        self.was_scraped.notify_one();
    }
}

/// The store and what its snapshots become.
pub(super) struct Publisher {
    pub(super) store: Store,
    pub(super) owns: Vec<SourceOwn>,
    /// By source: how old its data may be before they are withdrawn.
    pub(super) stale_after: Vec<SignedDuration>,
    pub(super) publication: Arc<Publication>,
    /// Keeps what it rendered last. Locked by one publication at a time, so never waited for.
    pub(super) renderer: Arc<Mutex<Option<Renderer>>>,
    pub(super) wall: fn() -> Timestamp,
}

impl Publisher {
    /// Until no poller is left.
    pub(super) async fn run(mut self, mut updates: mpsc::Receiver<Message>) {
        let mut newest = Arc::new(Snapshot::default());
        loop {
            let now = (self.wall)();
            let wake = [self.store.next_release(), self.next_withdrawal(&newest, now)]
                .into_iter()
                .flatten()
                .min();
            let publication = Arc::clone(&self.publication);
            let held = self.store.next_release().is_some();
            let published = tokio::select! {
                message = updates.recv() => match message {
                    Some(Message { source, update }) => self.store.update(source, update, (self.wall)(), self.scraped()),
                    None => return,
                },
                () = publication.was_scraped.notified(), if held => self.store.tick((self.wall)(), self.scraped()),
                () = sleep_until(wake, now) => {
                    let released = self.store.tick((self.wall)(), self.scraped());
                    released.or_else(|| Some(Arc::clone(&newest)))
                }
            };
            if let Some(snapshot) = published {
                newest = Arc::clone(&snapshot);
                self.publish(snapshot).await;
            }
        }
    }

    fn scraped(&self) -> u64 {
        self.publication.scraped.load(Ordering::Relaxed)
    }

    /// Renders away from the tasks that serve scrapes: a large snapshot takes a while.
    async fn publish(&self, snapshot: Arc<Snapshot>) {
        for source in &snapshot.sources {
            tell_projects(&self.owns, source);
        }
        let fresh = self.fresh(&snapshot, (self.wall)());
        let renderer = Arc::clone(&self.renderer);
        let render = move || {
            let mut place = renderer.lock().unwrap_or_else(PoisonError::into_inner);
            // Taken out: after a panic it would not be whole, and a new one only has more to do.
            let mut renderer = place.take().unwrap_or_default();
            let rendered = renderer.render(&fresh);
            *place = Some(renderer);
            rendered
        };
        match tokio::task::spawn_blocking(render).await {
            Ok(rendered) => self.publication.rendered.store(Arc::new(rendered)),
            Err(error) => tracing::error!(%error, "a snapshot could not be rendered; the one before it is served"),
        }
    }

    /// The sources whose data are not too old. Stale numbers must neither look like news nor like a frozen green.
    fn fresh(&self, snapshot: &Snapshot, now: Timestamp) -> Snapshot {
        let fresh = |source: &&Arc<SourceSnapshot>| self.stale_at(source).is_none_or(|at| now < at);
        Snapshot {
            generation: snapshot.generation,
            sources: snapshot.sources.iter().filter(fresh).cloned().collect(),
        }
    }

    fn stale_at(&self, source: &SourceSnapshot) -> Option<Timestamp> {
        let place = self
            .store
            .sources()
            .iter()
            .position(|state| state.spec().name == source.source)?;
        source.as_of.checked_add(*self.stale_after.get(place)?).ok()
    }

    /// When the next source's data become too old.
    fn next_withdrawal(&self, snapshot: &Snapshot, now: Timestamp) -> Option<Timestamp> {
        snapshot
            .sources
            .iter()
            .filter_map(|source| self.stale_at(source))
            .filter(|at| *at > now)
            .min()
    }
}

/// The project's name arrives with the data and is shown with the source.
pub(super) fn tell_projects(owns: &[SourceOwn], source: &SourceSnapshot) {
    let Some(project) = &source.project else { return };
    if let Some(own) = owns.iter().find(|own| own.name() == &*source.source) {
        own.project_told(project);
    }
}

/// Until a wall time, on tokio's clock; for ever if there is none.
async fn sleep_until(time: Option<Timestamp>, now: Timestamp) {
    match time {
        Some(time) => {
            let wait = time.duration_since(now).max(SignedDuration::from_millis(1));
            tokio::time::sleep(wait.unsigned_abs()).await;
        }
        None => std::future::pending().await,
    }
}
