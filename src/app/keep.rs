//! The ledger's place in the application: restores sources before they are polled, and writes what a round has changed
//! before it is shown. Never decides what is kept (`store` and `sources` do) or how (`store::ledger` does).
//!
//! The rule is: persist, then publish. A counter that was scraped is on the disk, so no crash takes it back.
//!
//! While the disk cannot be written the rule holds all the same. Gauges go on telling what is, but every counter stays at
//! what was persisted last; the log, `testrun_exporter_ledger_healthy` and `..._write_failures_total` say so. Nothing is
//! forgotten meanwhile: the first write that succeeds holds everything, and the counters catch up.

use std::io;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::metrics::own::{LedgerOwn, SourceOwn};
use crate::sources::MemoryError;
use crate::status::{Trouble, Troubles};
use crate::store::ledger::{Found, Identity, Kept, Ledger, Unreadable};
use crate::store::{Snapshot, SourceSnapshot, SourceSpec, SourceState, Store};

/// A disk that could not be written is tried again after this long, or when the next round ends.
const RETRY: SignedDuration = SignedDuration::from_secs(5);

/// What is kept of all sources.
pub struct Keeper {
    ledger: Arc<Ledger>,
    own: LedgerOwn,
    troubles: Troubles,
    sources: Vec<KeptSource>,
    retry_at: Option<Timestamp>,
    /// The newest generation that was shown as it is.
    shown_whole: u64,
}

/// What is kept of one source.
struct KeptSource {
    identity: Identity,
    own: SourceOwn,
    /// It begins anew, and it is not known yet that nothing lies where its file will be.
    in_the_way: Option<InTheWay>,
    /// The end of the last round, for as long as it may have to be written again.
    kept: Option<Kept>,
    unwritten: bool,
    /// What was shown of the source when it was written last.
    persisted: Option<Arc<SourceSnapshot>>,
}

/// What may lie where a source's file will be.
#[derive(Debug, Clone, Copy)]
struct InTheWay {
    /// What is known to be wrong with it. `None`: nothing was there when it was looked for. But a source of the same name that
    /// was polled until now may have been written since.
    why: Option<Unreadable>,
}

/// A source, as its keeper must know it.
pub(super) struct Membership {
    pub(super) identity: Identity,
    pub(super) own: SourceOwn,
    pub(super) past: Past,
}

/// Where a source goes on.
pub(super) enum Past {
    /// At this place of the former order.
    Known(usize),
    /// Where the ledger has it.
    Restored,
    /// Nowhere: it begins anew. What the ledger has for it cannot be read for this reason, if it has something.
    Nothing(Option<Unreadable>),
}

impl Keeper {
    /// On this ledger, of no source yet.
    #[must_use]
    pub fn new(ledger: Arc<Ledger>, own: LedgerOwn, troubles: Troubles) -> Self {
        Self {
            ledger,
            own,
            troubles,
            sources: Vec::new(),
            retry_at: None,
            shown_whole: 0,
        }
    }

    /// Goes over to these sources, in the order of the store. Those that are known by their place now go on; what is kept of
    /// one that is not among them stays on the disk, for it may come back.
    pub(super) fn reconfigure(&mut self, sources: impl Iterator<Item = Membership>) {
        let mut known: Vec<_> = std::mem::take(&mut self.sources).into_iter().map(Some).collect();
        let go_on = |membership: Membership| {
            let Membership { identity, own, past } = membership;
            let (known, in_the_way) = match past {
                Past::Known(place) => (known.get_mut(place).and_then(Option::take), None),
                Past::Restored => (None, None),
                Past::Nothing(why) => (None, Some(InTheWay { why })),
            };
            known.unwrap_or(KeptSource {
                identity,
                own,
                in_the_way,
                kept: None,
                unwritten: false,
                persisted: None,
            })
        };
        self.sources = sources.map(go_on).collect();
    }

    /// Sets aside what lies where a file of a source that begins anew will be. Not before that is certain: a reload that is
    /// refused leaves everything where it is. What cannot be moved is tried again before the source is written.
    pub(super) async fn clear_the_way(&mut self, now: Timestamp) {
        for source in &mut self.sources {
            if let Err(error) = source.clear_the_way(&self.ledger, now).await {
                tracing::error!(source = source.identity.name, %error, "what lies in the ledger's place cannot be set aside yet");
            }
        }
    }

    /// A round of a source has ended well, and its snapshot is built.
    pub(super) fn round_ended(&mut self, index: usize, state: &SourceState, memory: Option<Vec<u8>>) {
        let Some(source) = self.sources.get_mut(index) else {
            return;
        };
        source.unwritten = true;
        match (state.keep(), state.keep_released(), memory) {
            (Ok(state), Ok(released), Some(memory)) => {
                source.kept = Some(Kept {
                    state: state.into(),
                    memory: memory.into(),
                    released: released.into(),
                });
            }
            _ => tracing::error!(
                source = source.identity.name,
                "the round cannot be kept; the one before it is"
            ),
        }
    }

    /// Counts behind zeros are about to be shown: a process that comes after this one must not show the zeros again.
    pub(super) fn released(&mut self, store: &Store) {
        for (source, state) in self.sources.iter_mut().zip(store.sources()) {
            let (Some(kept), Ok(released)) = (&mut source.kept, state.keep_released()) else {
                continue;
            };
            if kept.released != released {
                kept.released = released.into();
                source.unwritten = true;
            }
        }
    }

    /// Counts of restored sources wait behind zeros. When they are shown that has to be written, so what is kept of these
    /// sources is held until then.
    pub(super) async fn hold(&mut self, store: &Store) {
        for (source, state) in self.sources.iter_mut().zip(store.sources()) {
            if source.kept.is_some() || !state.holds_back() {
                continue;
            }
            let (ledger, identity) = (Arc::clone(&self.ledger), source.identity.clone());
            let loaded = tokio::task::spawn_blocking(move || ledger.load(&identity)).await;
            if let (Ok(Ok(Found::Kept(kept))), Ok(state), Ok(released)) = (loaded, state.keep(), state.keep_released())
            {
                source.kept = Some(Kept {
                    state: state.into(),
                    memory: kept.memory,
                    released: released.into(),
                });
            }
        }
    }

    /// Writes what is not written yet.
    pub(super) async fn write(&mut self, store: &Store, now: Timestamp) {
        let was_healthy = self.retry_at.is_none();
        self.retry_at = None;
        for (source, state) in self.sources.iter_mut().zip(store.sources()) {
            if source.unwritten
                && let Some(kept) = source.kept.clone()
            {
                let began = Instant::now();
                let saved = source.save(&self.ledger, kept, now).await;
                let name = &*source.identity.name;
                match saved {
                    Ok(size) => {
                        self.own.written(began.elapsed().as_secs_f64());
                        source.own.kept(size, now);
                        source.unwritten = false;
                    }
                    Err(error) => {
                        self.own.write_failed();
                        let what = format!("source {name}: {error}");
                        self.troubles.note(Trouble::Ledger, now, Some(what));
                        if was_healthy {
                            tracing::error!(source = name, %error, "the ledger cannot be written: counters stand still until it can");
                        }
                    }
                }
            }
            if source.unwritten {
                self.retry_at = Some(now.checked_add(RETRY).unwrap_or(Timestamp::MAX));
            } else if !state.holds_back() {
                // Nothing of this round will have to be written again.
                source.kept = None;
            }
        }
        if !was_healthy && self.retry_at.is_none() {
            tracing::info!("the ledger is written again; the counters have caught up");
        }
        if self.retry_at.is_none() {
            self.troubles.note(Trouble::Ledger, now, None);
        }
        self.own.healthy(self.retry_at.is_none());
    }

    /// When a write that failed is to be tried again.
    pub(super) fn retry_at(&self) -> Option<Timestamp> {
        self.retry_at
    }

    /// As much of a snapshot as may be shown: a source's counters only as far as they are written. Whoever scrapes that has
    /// not seen the snapshot, so it goes by the generation of the last one that was shown whole.
    pub(super) fn shown(&mut self, snapshot: &Snapshot) -> Snapshot {
        let sources = snapshot.sources.iter().map(|newest| {
            let Some(source) = self
                .sources
                .iter_mut()
                .find(|source| source.identity.name == *newest.source)
            else {
                return Arc::clone(newest);
            };
            if source.unwritten {
                return Arc::new(newest.with_counters_of(source.persisted.as_deref()));
            }
            source.persisted = Some(Arc::clone(newest));
            Arc::clone(newest)
        });
        let sources = sources.collect();
        if !self.sources.iter().any(|source| source.unwritten) {
            self.shown_whole = snapshot.generation;
        }
        Snapshot {
            generation: self.shown_whole,
            sources,
        }
    }
}

impl KeptSource {
    async fn save(&mut self, ledger: &Arc<Ledger>, kept: Kept, now: Timestamp) -> io::Result<usize> {
        self.clear_the_way(ledger, now).await?;
        let (ledger, identity) = (Arc::clone(ledger), self.identity.clone());
        let saved = tokio::task::spawn_blocking(move || ledger.save(&identity, &kept)).await;
        saved.map_err(io::Error::other).flatten()
    }

    async fn clear_the_way(&mut self, ledger: &Arc<Ledger>, now: Timestamp) -> io::Result<()> {
        let Some(InTheWay { why }) = self.in_the_way else {
            return Ok(());
        };
        let (ledger, identity) = (Arc::clone(ledger), self.identity.clone());
        let clear = move || {
            let found = ledger.load(&identity)?;
            let why = match found {
                Found::Nothing => return Ok(None),
                Found::Unreadable(why) => why,
                // Its parts are whole, but do not fit this version.
                Found::Kept(_) => why.unwrap_or(Unreadable::Damaged),
            };
            let aside = ledger.set_aside(&identity, &now.as_second().to_string())?;
            Ok(Some((why, aside)))
        };
        let cleared = tokio::task::spawn_blocking(clear).await;
        if let Some((why, aside)) = cleared.map_err(io::Error::other).flatten()? {
            self.own.set_aside(why.label());
            tracing::error!(
                source = self.identity.name,
                %why,
                aside,
                "its ledger cannot be used and is set aside: what is finished now is a new baseline"
            );
        }
        self.in_the_way = None;
        Ok(())
    }
}

/// What a ledger had for a source.
#[derive(Default)]
pub struct Recovered {
    /// Where it goes on; `None`: it begins anew.
    pub state: Option<SourceState>,
    /// Why what is there cannot be used. It is set aside when the source is polled.
    pub unreadable: Option<Unreadable>,
}

/// Reads what was kept of a source: its numbers, with its memory taken by `remember`, both or neither. What cannot be read
/// stops nothing. Changes nothing: a configuration that is only tried leaves no trace.
///
/// # Errors
/// The disk cannot be read, so nothing is known about what it holds.
pub fn recover(
    ledger: &Ledger,
    identity: &Identity,
    spec: SourceSpec,
    remember: impl FnOnce(&[u8]) -> Result<(), MemoryError>,
) -> io::Result<Recovered> {
    Ok(match ledger.load(identity)? {
        Found::Nothing => Recovered::default(),
        Found::Kept(kept) => {
            let state = recovered(spec, &kept, remember);
            let unreadable = state.is_none().then_some(Unreadable::Damaged);
            Recovered { state, unreadable }
        }
        Found::Unreadable(why) => Recovered {
            state: None,
            unreadable: Some(why),
        },
    })
}

/// The state is there only when the source has taken its memory.
fn recovered(
    spec: SourceSpec,
    kept: &Kept,
    remember: impl FnOnce(&[u8]) -> Result<(), MemoryError>,
) -> Option<SourceState> {
    let state = SourceState::restored(spec, &kept.state, &kept.released).ok()?;
    remember(&kept.memory).ok()?;
    Some(state)
}

/// How much time has fallen out of the lookback between a source's last good round and this one: runs that finished in it
/// can no longer be read, and are lost.
pub(super) fn lost(before: Timestamp, now: Timestamp, lookback: SignedDuration) -> Option<SignedDuration> {
    let missed = now.duration_since(before).checked_sub(lookback)?;
    (before > Timestamp::MIN && missed.is_positive()).then_some(missed)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::app::fixtures::{info, own, spec};
    use crate::model::{CaseOutcome, Fact, Group, RoundResult, Run, RunOutcome, Update};
    use crate::store::Next;
    use crate::store::ledger::Directory;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_795_300_000 + second).unwrap()
    }

    fn identity() -> Identity {
        Identity {
            name: "shop".to_owned(),
            kind: "empirical",
            base_url: "https://api.example.test/".to_owned(),
        }
    }

    fn passed() -> Fact {
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
            ended: Some(at(5)),
            duration_seconds: None,
            counts: [None; CaseOutcome::COUNT],
            commit: None,
            build_url: None,
        })
    }

    fn round(store: &mut Store, facts: Vec<Fact>, second: i64) {
        store.update(0, Update::Facts(facts), at(second), 0);
        let ended = Update::RoundEnded {
            result: RoundResult::Success,
            at: at(second),
        };
        store.update(0, ended, at(second), 0);
    }

    fn runs_shown(store: &Store) -> u64 {
        let newest = store.newest();
        newest.sources[0].groups.iter().flat_map(|row| row.runs).sum()
    }

    /// The next process on this ledger.
    async fn restarted(ledger: &Arc<Ledger>) -> (Store, Keeper) {
        let recovered = recover(ledger, &identity(), spec(), |_| Ok(())).unwrap();
        let own = own();
        let mut keeper = Keeper::new(Arc::clone(ledger), own.ledger(), Troubles::default());
        let membership = Membership {
            identity: identity(),
            own: own.source("shop", &info()),
            past: Past::Restored,
        };
        keeper.reconfigure(std::iter::once(membership));
        let mut store = Store::new(Vec::new(), 0);
        let state = Box::new(recovered.state.expect("it was kept"));
        store.reconfigure(vec![Next::New(state)], 1_000, at(20));
        keeper.hold(&store).await;
        (store, keeper)
    }

    #[tokio::test]
    async fn what_a_restored_source_shows_behind_its_zeros_is_not_hidden_again_by_the_next_process() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = Arc::new(Ledger::new(Directory::take(directory.path()).unwrap()));
        let mut store = Store::new(vec![spec()], 1_000);
        round(&mut store, Vec::new(), 0);
        round(&mut store, vec![passed()], 10);
        let state = &store.sources()[0];
        let kept = Kept {
            state: state.keep().unwrap().into(),
            memory: Bytes::default(),
            released: state.keep_released().unwrap().into(),
        };
        ledger.save(&identity(), &kept).unwrap();

        // It ends twice before anybody has seen the zeros.
        for _ in 0..2 {
            let (store, _) = restarted(&ledger).await;
            assert_eq!(runs_shown(&store), 0);
        }
        let (mut store, mut keeper) = restarted(&ledger).await;
        store.tick(at(21), u64::MAX).expect("the counts behind the zeros");
        assert_eq!(runs_shown(&store), 1);
        keeper.released(&store);
        keeper.write(&store, at(21)).await;
        let (store, _) = restarted(&ledger).await;
        assert_eq!(runs_shown(&store), 1, "a counter does not go back");
        assert_eq!(store.next_release(), None);
    }

    #[test]
    fn what_fell_out_of_the_lookback_is_lost() {
        let check = |before: i64, now: i64, expected: Option<i64>| {
            let time = |second| Timestamp::from_second(second).unwrap();
            let lost = lost(time(before), time(now), SignedDuration::from_secs(100));
            assert_eq!(lost, expected.map(SignedDuration::from_secs), "{before} {now}");
        };
        check(1000, 1060, None);
        check(1000, 1100, None);
        check(1000, 1103, Some(3));
        check(1000, 900, None);
        let never = lost(Timestamp::MIN, Timestamp::MAX, SignedDuration::from_secs(100));
        assert_eq!(never, None, "a source that is met for the first time has lost nothing");
    }
}
