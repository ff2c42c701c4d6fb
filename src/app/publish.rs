//! The one task that owns the store: takes updates, publishes rendered snapshots, lets held counts go after a scrape.
//! Never polls, never serves.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, mpsc, oneshot};

use super::keep::{self, Keeper, Membership, Past};
use crate::metrics::Format;
use crate::metrics::own::SourceOwn;
use crate::metrics::render::{Rendered, Renderer, render};
use crate::poll::{Message, Wall};
use crate::store::ledger::{Identity, Unreadable};
use crate::store::{Next, Snapshot, SourceSnapshot, SourceSpec, SourceState, Store};

/// A format that nobody has asked for, compressed, for so long is not compressed any more: that is most of a publication's
/// cost, and of two formats a server asks for one. Longer than any scrape interval.
const PACKED_SECONDS: i64 = 900;

/// So late may data that are too old leave the page, or those that are not come back, if the wall clock was set or the
/// machine slept.
const TURN_LATE_MAX: SignedDuration = SignedDuration::from_secs(30);

/// Nobody has asked yet.
const NEVER: i64 = i64::MIN;

/// What scrapes read, and how they tell that they have read it.
pub struct Publication {
    /// The newest text.
    pub rendered: ArcSwap<Rendered>,
    scraped: AtomicU64,
    was_scraped: Notify,
    /// By format: when it was last asked for compressed, in seconds since 1970.
    asked: [AtomicI64; Format::ALL.len()],
    was_missed: Notify,
}

impl Default for Publication {
    fn default() -> Self {
        Self {
            rendered: ArcSwap::from_pointee(render(&Snapshot::default())),
            scraped: AtomicU64::new(0),
            was_scraped: Notify::new(),
            asked: [const { AtomicI64::new(NEVER) }; Format::ALL.len()],
            was_missed: Notify::new(),
        }
    }
}

impl Publication {
    /// A scrape has taken this generation.
    pub fn scraped(&self, generation: u64) {
        self.scraped.fetch_max(generation, Ordering::Relaxed);
        self.was_scraped.notify_one();
    }

    /// A scrape wanted this format compressed, and got it or not. If not, it is compressed at once, for the next one.
    pub fn asked(&self, format: Format, now: Timestamp, got: bool) {
        self.asked[format as usize].store(now.as_second(), Ordering::Relaxed);
        if !got {
            self.was_missed.notify_one();
        }
    }

    /// The formats to compress. In the beginning all of them: it is not known yet who will ask for what.
    pub(super) fn packed(&self, now: Timestamp) -> Vec<Format> {
        let now = now.as_second();
        let is_asked_for = |format: &Format| {
            let asked = &self.asked[*format as usize];
            let since = match asked.compare_exchange(NEVER, now, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => now,
                Err(since) => since,
            };
            now.saturating_sub(since) < PACKED_SECONDS
        };
        Format::ALL.into_iter().filter(is_asked_for).collect()
    }
}

/// The store and what its snapshots become.
pub struct Publisher {
    store: Store,
    /// What is kept of it on disk, if anything is.
    keeper: Option<Keeper>,
    // By source, in the store's order:
    /// The number that its messages carry. Numbers are not used twice: what a poller says after its source is gone is
    /// nobody's.
    units: Vec<usize>,
    owns: Vec<SourceOwn>,
    stale_after: Vec<SignedDuration>,
    lookback: Vec<SignedDuration>,
    /// Whether it is on the newest page. One that has nothing to show yet counts as if it were.
    on_page: Vec<bool>,
    publication: Arc<Publication>,
    /// Keeps what it rendered last. Locked by one publication at a time, so never waited for.
    renderer: Arc<Mutex<Option<Renderer>>>,
    wall: Wall,
}

/// Another configuration: what goes on, what begins, and, by not being there, what goes.
pub struct Change {
    /// The sources, in their new order.
    pub members: Vec<Member>,
    /// The ceiling for per-case series.
    pub series_budget: usize,
    /// Is told when it is shown.
    pub done: oneshot::Sender<()>,
}

/// One source of it.
pub struct Member {
    /// The number that its messages carry.
    pub unit: usize,
    /// What the store must know of it.
    pub spec: SourceSpec,
    /// With what it begins, if it is new.
    pub begins: Option<Beginning>,
    /// Which past belongs to it.
    pub identity: Identity,
    /// Where its health is told.
    pub own: SourceOwn,
    /// How far back it is read.
    pub lookback: SignedDuration,
    /// How old its data may be before they are withdrawn.
    pub stale_after: SignedDuration,
}

/// With what a source begins.
pub struct Beginning {
    /// Nothing, or what was kept of it.
    pub state: Box<SourceState>,
    /// Why what is kept of it cannot be used.
    pub unreadable: Option<Unreadable>,
}

impl Publisher {
    /// Of no source yet.
    #[must_use]
    pub fn new(keeper: Option<Keeper>, publication: Arc<Publication>, wall: Wall) -> Self {
        Self {
            store: Store::new(Vec::new(), 0),
            keeper,
            units: Vec::new(),
            owns: Vec::new(),
            stale_after: Vec::new(),
            lookback: Vec::new(),
            on_page: Vec::new(),
            publication,
            renderer: Arc::default(),
            wall,
        }
    }

    /// Goes over to another configuration. Comes between two publications, so what is written is shown, and what is shown
    /// is written.
    async fn change(&mut self, change: Change) -> Arc<Snapshot> {
        let Change {
            members,
            series_budget,
            done,
        } = change;
        if let Some(keeper) = self.keeper.as_mut().filter(|keeper| keeper.retry_at().is_some()) {
            // The last chance for a source that goes.
            keeper.write(&self.store, (self.wall)()).await;
        }
        let place = |unit: usize| self.units.iter().position(|known| *known == unit);
        let places: Vec<_> = members
            .iter()
            .map(|member| place(member.unit).filter(|_| member.begins.is_none()))
            .collect();
        if let Some(keeper) = &mut self.keeper {
            let memberships = members.iter().zip(&places).map(|(member, place)| Membership {
                identity: member.identity.clone(),
                own: member.own.clone(),
                past: match (place, &member.begins) {
                    (Some(place), _) => Past::Known(*place),
                    (None, Some(begins)) if begins.state.as_of() > Timestamp::MIN => Past::Restored,
                    (None, begins) => Past::Nothing(begins.as_ref().and_then(|begins| begins.unreadable)),
                },
            });
            keeper.reconfigure(memberships);
            keeper.clear_the_way((self.wall)()).await;
        }
        let was_on_page = |place: &Option<usize>| place.is_none_or(|place| self.on_page[place]);
        self.on_page = places.iter().map(was_on_page).collect();
        self.units = members.iter().map(|member| member.unit).collect();
        self.owns = members.iter().map(|member| member.own.clone()).collect();
        self.stale_after = members.iter().map(|member| member.stale_after).collect();
        self.lookback = members.iter().map(|member| member.lookback).collect();
        let next = members
            .into_iter()
            .zip(places)
            .map(|(member, place)| match (member.begins, place) {
                (None, Some(place)) => Next::Known {
                    place,
                    spec: Box::new(member.spec),
                },
                (Some(begins), _) => Next::New(begins.state),
                (None, None) => Next::New(Box::new(SourceState::new(member.spec))),
            });
        let snapshot = self.store.reconfigure(next.collect(), series_budget, (self.wall)());
        for (own, state) in self.owns.iter().zip(self.store.sources()) {
            own.late_edits(state.late_edits());
        }
        if let Some(keeper) = &mut self.keeper {
            keeper.hold(&self.store).await;
        }
        // A smaller budget holds from here on.
        let snapshot = self.release().unwrap_or(snapshot);
        self.publish(Arc::clone(&snapshot)).await;
        // Who has asked may be about to stop the process.
        let _ = done.send(());
        snapshot
    }

    /// Until no poller is left that could say anything.
    pub async fn run(mut self, mut updates: mpsc::Receiver<Message>, mut changes: mpsc::Receiver<Change>) {
        let mut newest = self.store.newest();
        loop {
            let now = (self.wall)();
            let retry = self.keeper.as_ref().and_then(Keeper::retry_at);
            let wake = [self.store.next_release(), self.next_turn(&newest, now), retry]
                .into_iter()
                .flatten()
                .min();
            let publication = Arc::clone(&self.publication);
            let held = self.store.next_release().is_some();
            let published = tokio::select! {
                Some(change) = changes.recv() => {
                    newest = self.change(change).await;
                    continue;
                }
                message = updates.recv() => match message {
                    Some(message) => self.take(message),
                    None => break,
                },
                () = publication.was_scraped.notified(), if held => self.release(),
                () = publication.was_missed.notified() => Some(Arc::clone(&newest)),
                () = sleep_until(wake, now) => self.release().or_else(|| Some(Arc::clone(&newest))),
            };
            if let Some(snapshot) = published {
                newest = Arc::clone(&snapshot);
                self.publish(snapshot).await;
            }
        }
        // What could not be written while it was running has a last chance.
        if let Some(keeper) = self.keeper.as_mut().filter(|keeper| keeper.retry_at().is_some()) {
            keeper.write(&self.store, (self.wall)()).await;
        }
    }

    /// What a poller says. The snapshot to publish, if a round has ended well.
    fn take(&mut self, message: Message) -> Option<Arc<Snapshot>> {
        let Message { source, update, memory } = message;
        let source = self.units.iter().position(|unit| *unit == source)?;
        let now = (self.wall)();
        let before = self.store.sources().get(source)?.as_of();
        let snapshot = self.store.update(source, update, now, self.scraped())?;
        if let Some(own) = self.owns.get(source) {
            own.late_edits(self.store.sources().get(source)?.late_edits());
        }
        if let Some(lost) = keep::lost(before, now, *self.lookback.get(source)?) {
            let own = self.owns.get(source)?;
            own.lost(lost.as_secs_f64());
            tracing::error!(
                source = own.name(),
                from = %before,
                seconds = lost.as_secs(),
                "runs that finished in these seconds are older than the lookback: they are lost"
            );
        }
        if let Some(keeper) = &mut self.keeper {
            keeper.round_ended(source, &self.store.sources()[source], memory);
        }
        Some(snapshot)
    }

    /// The snapshot that shows the counts behind zeros that were scraped, if there are any.
    fn release(&mut self) -> Option<Arc<Snapshot>> {
        let snapshot = self.store.tick((self.wall)(), self.scraped())?;
        if let Some(keeper) = &mut self.keeper {
            keeper.released(&self.store);
        }
        Some(snapshot)
    }

    fn scraped(&self) -> u64 {
        self.publication.scraped.load(Ordering::Relaxed)
    }

    /// Persists, then publishes. Renders away from the tasks that serve scrapes: a large snapshot takes a while.
    async fn publish(&mut self, snapshot: Arc<Snapshot>) {
        let snapshot = match &mut self.keeper {
            Some(keeper) => {
                keeper.write(&self.store, (self.wall)()).await;
                Arc::new(keeper.shown(&snapshot))
            }
            None => snapshot,
        };
        for source in &snapshot.sources {
            tell_projects(&self.owns, source);
            tell_promotion(&self.owns, source);
        }
        let now = (self.wall)();
        let fresh = self.fresh(&snapshot, now);
        self.turn_the_page(&fresh);
        let packed = self.publication.packed(now);
        let renderer = Arc::clone(&self.renderer);
        let render = move || {
            let mut place = renderer.lock().unwrap_or_else(PoisonError::into_inner);
            // Taken out: after a panic it would not be whole, and a new one only has more to do.
            let mut renderer = place.take().unwrap_or_default();
            let rendered = renderer.render_for(&fresh, &packed);
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

    /// A scrape of this page sees nothing of a source that is not on it.
    fn turn_the_page(&mut self, page: &Snapshot) {
        let scraped = self.scraped();
        for (source, was_on_page) in self.on_page.iter_mut().enumerate() {
            let Some(state) = self.store.sources().get(source) else {
                continue;
            };
            let is_on_page =
                state.published().is_none() || page.sources.iter().any(|on| on.source == state.spec().name);
            if *was_on_page && !is_on_page {
                self.store.withdraw(source, scraped);
            }
            *was_on_page = is_on_page;
        }
    }

    fn place(&self, source: &SourceSnapshot) -> Option<usize> {
        let mut states = self.store.sources().iter();
        states.position(|state| state.spec().name == source.source)
    }

    fn stale_at(&self, source: &SourceSnapshot) -> Option<Timestamp> {
        let stale_after = *self.stale_after.get(self.place(source)?)?;
        source.as_of.checked_add(stale_after).ok()
    }

    /// When the next source of the page is to leave it: perhaps it should have already. And soon in any case, because the
    /// clock that is waited on and the one that ages the data may part: then one is to leave earlier, or to come back.
    fn next_turn(&self, snapshot: &Snapshot, now: Timestamp) -> Option<Timestamp> {
        if snapshot.sources.is_empty() {
            return None;
        }
        let is_on_page = |source: &&Arc<SourceSnapshot>| self.place(source).is_some_and(|place| self.on_page[place]);
        let on_page = snapshot.sources.iter().filter(is_on_page);
        let turns = on_page.filter_map(|source| self.stale_at(source));
        turns.chain(now.checked_add(TURN_LATE_MAX)).min()
    }
}

/// The project's name arrives with the data and is shown with the source.
pub(super) fn tell_projects(owns: &[SourceOwn], source: &SourceSnapshot) {
    let Some(project) = &source.project else { return };
    if let Some(own) = owns.iter().find(|own| own.name() == &*source.source) {
        own.project_told(project);
    }
}

/// What speaks against a promotion is shown beside the source's health, because it has to be reckoned for each scrape: a page
/// that is served for too long, for whatever reason, must not let anything through.
pub(super) fn tell_promotion(owns: &[SourceOwn], source: &SourceSnapshot) {
    if let Some(own) = owns.iter().find(|own| own.name() == &*source.source) {
        own.promotion(&source.promotion);
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::app::fixtures::{info, own, spec};
    use crate::metrics::ends::{Complete, Ends};
    use crate::metrics::own::SourceInfo;
    use crate::model::{CaseOutcome, Fact, Group, RoundResult, Run, RunOutcome, Update};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_795_300_000 + second).unwrap()
    }

    #[test]
    fn a_format_is_compressed_for_as_long_as_somebody_asks_for_it() {
        let publication = Publication::default();
        assert_eq!(publication.packed(at(0)), Format::ALL, "who asks is not known yet");
        assert_eq!(publication.packed(at(PACKED_SECONDS - 1)), Format::ALL);
        publication.asked(Format::OpenMetrics, at(PACKED_SECONDS - 1), true);
        assert_eq!(publication.packed(at(PACKED_SECONDS)), [Format::OpenMetrics]);
        assert_eq!(publication.packed(at(2 * PACKED_SECONDS)), []);
        publication.asked(Format::Text, at(2 * PACKED_SECONDS), false);
        assert_eq!(publication.packed(at(2 * PACKED_SECONDS)), [Format::Text]);
        assert_eq!(publication.packed(at(-5)), Format::ALL, "the clock was set back");
    }

    /// A publisher that knows one source, which may be silent for 20 s.
    struct Bench {
        publication: Arc<Publication>,
        wall: Wall,
        sender: mpsc::Sender<Message>,
        _changer: mpsc::Sender<Change>,
    }

    impl Bench {
        async fn new(wall: Wall) -> Self {
            let publication = Arc::new(Publication::default());
            let publisher = Publisher::new(None, Arc::clone(&publication), Arc::clone(&wall));
            let (sender, updates) = mpsc::channel(8);
            let (changer, changes) = mpsc::channel(1);
            tokio::spawn(publisher.run(updates, changes));
            let info = SourceInfo {
                poll_interval: Duration::from_secs(5),
                stale_after: Duration::from_secs(20),
                ..info()
            };
            let member = Member {
                unit: 0,
                spec: spec(),
                begins: None,
                identity: Identity {
                    name: "shop".to_owned(),
                    kind: "empirical",
                    base_url: String::new(),
                },
                own: own().source("shop", &info),
                lookback: SignedDuration::from_hours(24),
                stale_after: SignedDuration::from_secs(20),
            };
            let (done, shown) = oneshot::channel();
            let change = Change {
                members: vec![member],
                series_budget: 1_000,
                done,
            };
            assert!(changer.send(change).await.is_ok());
            shown.await.unwrap();
            Self {
                publication,
                wall,
                sender,
                _changer: changer,
            }
        }

        fn text(&self) -> String {
            String::from_utf8(self.publication.rendered.load().text.to_text()).unwrap()
        }

        /// The next page, whatever brings it.
        async fn turned(&self) {
            let before = self.publication.rendered.load_full();
            while Arc::ptr_eq(&before, &self.publication.rendered.load_full()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }

        async fn round(&self, facts: Vec<Fact>) {
            let ended = Update::RoundEnded {
                result: RoundResult::Success,
                at: (self.wall)(),
            };
            for update in [Update::Facts(facts), ended] {
                let message = Message {
                    source: 0,
                    update,
                    memory: None,
                };
                assert!(self.sender.send(message).await.is_ok());
            }
            self.turned().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_scrape_sees_no_zeros_of_a_source_that_is_not_on_the_page() {
        let began = tokio::time::Instant::now();
        let bench = Bench::new(Arc::new(move || {
            at(0) + SignedDuration::try_from(began.elapsed()).unwrap()
        }))
        .await;
        bench.round(Vec::new()).await;
        bench.round(vec![finished_run(at(-5))]).await;
        let counted = |count: u32| {
            format!(
                "testrun_runs_total{{source=\"shop\",environment=\"prod\",branch=\"main\",outcome=\"passed\"}} {count}\n"
            )
        };
        assert!(bench.text().contains(&counted(0)), "{}", bench.text());
        bench.turned().await;
        assert!(!bench.text().contains("shop"), "withdrawn: {}", bench.text());
        let scraped = || bench.publication.scraped(bench.publication.rendered.load().generation);
        scraped();
        tokio::time::sleep(Duration::from_secs(5)).await;
        bench.round(Vec::new()).await;
        assert!(bench.text().contains(&counted(0)), "{}", bench.text());
        scraped();
        bench.turned().await;
        assert!(bench.text().contains(&counted(1)), "{}", bench.text());
    }

    /// The wall clock goes a little slower than the one that is waited on, and it goes on while a page is made: at whatever
    /// moment between two readings the data become too old, they leave.
    #[tokio::test(start_paused = true)]
    async fn data_leave_in_time_whatever_the_two_clocks_do() {
        for micros in (200..12_000).step_by(200) {
            let began = tokio::time::Instant::now();
            let readings = AtomicI64::new(0);
            let bench = Bench::new(Arc::new(move || {
                let read = readings.fetch_add(1, Ordering::Relaxed);
                let elapsed = SignedDuration::try_from(began.elapsed()).unwrap();
                at(0) + elapsed - elapsed / 2_000 + SignedDuration::from_micros(micros) * i32::try_from(read).unwrap()
            }))
            .await;
            bench.round(vec![finished_run(at(-5))]).await;
            assert!(bench.text().contains("shop"), "{}", bench.text());
            tokio::time::sleep(Duration::from_secs(21)).await;
            assert!(!bench.text().contains("shop"), "{micros}: {}", bench.text());
        }
    }

    /// The machine has slept, say.
    #[tokio::test(start_paused = true)]
    async fn data_leave_soon_after_the_wall_clock_has_leapt_and_come_back_with_it() {
        let began = tokio::time::Instant::now();
        let leap = Arc::new(AtomicI64::new(0));
        let leapt = Arc::clone(&leap);
        let bench = Bench::new(Arc::new(move || {
            let elapsed = SignedDuration::try_from(began.elapsed()).unwrap();
            // A day is much to wait for: the source may be silent for 20 s of the wall clock, which crawls.
            at(0) + elapsed / 1_000 + SignedDuration::from_secs(leapt.load(Ordering::Relaxed))
        }))
        .await;
        bench.round(vec![finished_run(at(-5))]).await;
        leap.store(3_600, Ordering::Relaxed);
        let some_time = TURN_LATE_MAX.unsigned_abs() + Duration::from_secs(1);
        tokio::time::sleep(some_time).await;
        assert!(!bench.text().contains("shop"), "{}", bench.text());
        leap.store(0, Ordering::Relaxed);
        tokio::time::sleep(some_time).await;
        assert!(bench.text().contains("shop"), "it was a mistake: {}", bench.text());
    }

    fn finished_run(ended: Timestamp) -> Fact {
        Fact::Run(Run {
            id: 1,
            group: Group {
                environment: "prod".into(),
                branch: "main".into(),
            },
            outcome: RunOutcome::Passed,
            error_code: None,
            created: None,
            started: None,
            ended: Some(ended),
            duration_seconds: None,
            counts: [None; CaseOutcome::COUNT],
            commit: None,
            build_url: None,
        })
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_for_what_was_not_compressed_gets_it_plain_and_then_compressed() {
        let publication = Arc::new(Publication::default());
        // Long ago.
        publication.packed(Timestamp::UNIX_EPOCH);
        let publisher = Publisher::new(None, Arc::clone(&publication), Arc::new(|| at(0)));
        let (sender, updates) = mpsc::channel(1);
        let (_changer, changes) = mpsc::channel(1);
        let running = tokio::spawn(publisher.run(updates, changes));
        let ends = Ends::new(own());
        // Republishes, since nothing else does here, and waits for it.
        let republished = async |format: Format| {
            let before = publication.rendered.load_full();
            publication.asked(format, at(0), false);
            while Arc::ptr_eq(&before, &publication.rendered.load_full()) {
                tokio::task::yield_now().await;
            }
        };
        republished(Format::Text).await;
        for (format, gzipped) in [(Format::Text, true), (Format::OpenMetrics, false)] {
            let complete = ends.complete(&publication.rendered.load_full(), format, true, at(0));
            assert_eq!(complete.gzipped, gzipped, "{format:?}");
            let Complete { body, end, .. } = complete;
            let text = [&body.to_bytes()[..], &end].concat();
            assert_eq!(text.ends_with(b"# EOF\n"), !gzipped, "{format:?}");
        }
        republished(Format::OpenMetrics).await;
        for format in Format::ALL {
            assert!(
                ends.complete(&publication.rendered.load_full(), format, true, at(0))
                    .gzipped
            );
        }
        drop(sender);
        running.await.unwrap();
    }
}
