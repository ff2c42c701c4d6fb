//! What a scrape is made of: the snapshot's exposition, shared, and behind it our own health, read anew.
//! Never renders a snapshot, never knows who asks.

use std::sync::{Arc, OnceLock, Weak};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use crate::metrics::exposition::Exposition;
use crate::metrics::own::Own;
use crate::metrics::render::Rendered;
use crate::metrics::text::Format;

/// Our own health is read anew when it is older than this. Reading it takes longer than all the rest of a scrape, so it is better
/// done ahead of the scrapes ([`Ends::freshen`]).
const OWN_HEALTH_AGE_MAX: SignedDuration = SignedDuration::from_secs(1);

/// Below this, compressing saves less than its own header and a packet.
const GZIP_BYTES_MIN: u64 = 1024;

/// Up to here body and end are joined, once for all scrapes of that second: one write instead of two is a third of the cost
/// of a small scrape.
const JOINED_BYTES_MAX: u64 = 64 * 1024;

/// A whole exposition: the body, then the end.
#[derive(Debug, Clone)]
pub struct Complete {
    /// What all scrapes of this snapshot share.
    pub body: Body,
    /// What comes behind it.
    pub end: Bytes,
    /// Whether the two are one gzip member.
    pub gzipped: bool,
}

/// What stands before the end.
#[derive(Debug, Clone)]
pub enum Body {
    /// These bytes.
    Ready(Arc<[Bytes]>),
    /// The text of this, which every scrape reads for itself.
    Text(Exposition),
}

impl Body {
    /// All of it in one piece, for who wants that.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Ready(pieces) => pieces.concat(),
            Self::Text(exposition) => exposition.to_text(),
        }
    }
}

/// Completes expositions with our own health.
pub struct Ends {
    own: Own,
    /// The last ones, by format.
    kept: [ArcSwapOption<End>; Format::ALL.len()],
}

struct End {
    /// A compressed end fits one exposition only. Weak, because nobody may ever scrape in this format again.
    of: Weak<Rendered>,
    at: Timestamp,
    text: Bytes,
    /// Made when they are asked for: most scrapers all ask for the same.
    plain: OnceLock<Complete>,
    /// Nothing if the snapshot was not compressed.
    gzipped: OnceLock<Option<Complete>>,
}

impl End {
    fn serves(&self, rendered: &Arc<Rendered>, now: Timestamp) -> bool {
        let age = now.duration_since(self.at);
        std::ptr::eq(self.of.as_ptr(), Arc::as_ptr(rendered)) && !age.is_negative() && age < OWN_HEALTH_AGE_MAX
    }
}

impl Ends {
    /// For scrapes that end with this.
    #[must_use]
    pub fn new(own: Own) -> Self {
        Self {
            own,
            kept: Default::default(),
        }
    }

    /// The exposition of a snapshot, compressed if that is wanted and worth it, and if the snapshot was compressed.
    #[must_use]
    pub fn complete(&self, rendered: &Arc<Rendered>, format: Format, gzip: bool, now: Timestamp) -> Complete {
        let end = self.end(rendered, format, now);
        let exposition = rendered.exposition(format);
        let worth_it = gzip && exposition.text_bytes() + end.text.len() as u64 >= GZIP_BYTES_MIN;
        if worth_it {
            let gzipped = || {
                let packed_end = exposition.packed_end(&end.text)?;
                let body = exposition.packed()?;
                let bytes = body.iter().map(|piece| piece.len() as u64).sum();
                let pieces = || body.concat();
                let ready = || Body::Ready(Arc::clone(body));
                Some(joined(bytes, pieces, ready, packed_end, true))
            };
            if let Some(gzipped) = end.gzipped.get_or_init(gzipped) {
                return gzipped.clone();
            }
        }
        let plain = || {
            let (text, whole) = (|| exposition.to_text(), || Body::Text(exposition.clone()));
            joined(exposition.text_bytes(), text, whole, end.text.clone(), false)
        };
        end.plain.get_or_init(plain).clone()
    }

    fn end(&self, rendered: &Arc<Rendered>, format: Format, now: Timestamp) -> Arc<End> {
        let kept = &self.kept[format as usize];
        if let Some(end) = kept.load_full().filter(|end| end.serves(rendered, now)) {
            return end;
        }
        self.read(rendered, format, now)
    }

    /// Reads our own health ahead of the next scrapes, if they want this format compressed. To be called more often than once a
    /// second: then no scrape has to.
    pub fn freshen(&self, rendered: &Arc<Rendered>, format: Format, now: Timestamp) {
        self.read(rendered, format, now);
        // Compressed now, and kept with it.
        drop(self.complete(rendered, format, true, now));
    }

    fn read(&self, rendered: &Arc<Rendered>, format: Format, now: Timestamp) -> Arc<End> {
        let kept = &self.kept[format as usize];
        let end = Arc::new(End {
            of: Arc::downgrade(rendered),
            at: now,
            text: rendered.exposition(format).text_end(&self.own.render(now, format)),
            plain: OnceLock::new(),
            gzipped: OnceLock::new(),
        });
        kept.store(Some(Arc::clone(&end)));
        end
    }
}

fn joined(
    bytes: u64,
    text: impl FnOnce() -> Vec<u8>,
    body: impl FnOnce() -> Body,
    end: Bytes,
    gzipped: bool,
) -> Complete {
    let (body, end) = if bytes + end.len() as u64 <= JOINED_BYTES_MAX {
        (Body::Ready(Arc::default()), [&text()[..], &end].concat().into())
    } else {
        (body(), end)
    };
    Complete { body, end, gzipped }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::metrics::own::BuildInfo;
    use crate::metrics::render::{Renderer, render};
    use crate::store::Snapshot;

    fn at(millisecond: i64) -> Timestamp {
        Timestamp::from_millisecond(1_795_300_000_000 + millisecond).unwrap()
    }

    fn ends() -> (Ends, Own) {
        let build = BuildInfo {
            version: "1",
            revision: "2",
            rustc_version: "3",
        };
        let own = Own::new(build).unwrap();
        (Ends::new(own.clone()), own)
    }

    fn text(complete: &Complete) -> String {
        let bytes = [&complete.body.to_bytes()[..], &complete.end].concat();
        let mut text = String::new();
        if complete.gzipped {
            flate2::read::GzDecoder::new(&bytes[..])
                .read_to_string(&mut text)
                .unwrap();
        } else {
            text = String::from_utf8(bytes).unwrap();
        }
        text
    }

    #[test]
    fn both_encodings_of_a_scrape_have_the_same_text() {
        let (ends, _) = ends();
        let rendered = Arc::new(render(&Snapshot::default()));
        for format in Format::ALL {
            let plain = ends.complete(&rendered, format, false, at(0));
            let packed = ends.complete(&rendered, format, true, at(0));
            assert!(packed.gzipped && !plain.gzipped);
            assert_eq!(text(&plain), text(&packed));
            assert!(text(&plain).ends_with(format.end()));
        }
    }

    #[test]
    fn forty_scrapes_at_once_hold_the_same_bytes() {
        let (ends, _) = ends();
        let rendered = Arc::new(render(&Snapshot::default()));
        for (format, gzip) in Format::ALL.into_iter().flat_map(|it| [(it, false), (it, true)]) {
            let scrapes: Vec<_> = (0..40).map(|_| ends.complete(&rendered, format, gzip, at(0))).collect();
            let place = |scrape: &Complete| match &scrape.body {
                Body::Ready(pieces) => (pieces.as_ptr(), scrape.end.as_ptr()),
                Body::Text(_) => panic!("small enough to be kept"),
            };
            assert!(scrapes.iter().all(|scrape| place(scrape) == place(&scrapes[0])));
        }
    }

    #[test]
    fn what_was_not_compressed_is_served_as_it_is() {
        let (ends, _) = ends();
        let rendered = Arc::new(Renderer::default().render_for(&Snapshot::default(), &[Format::Text]));
        for (format, gzipped) in [(Format::Text, true), (Format::OpenMetrics, false)] {
            let asked = ends.complete(&rendered, format, true, at(0));
            assert_eq!(asked.gzipped, gzipped);
            assert_eq!(text(&asked), text(&ends.complete(&rendered, format, false, at(0))));
        }
    }

    #[test]
    fn a_scrape_gets_what_was_read_ahead_of_it() {
        let (ends, own) = ends();
        let rendered = Arc::new(render(&Snapshot::default()));
        ends.freshen(&rendered, Format::Text, at(0));
        own.config_loaded(at(0), true);
        let loaded = |millisecond| {
            let complete = ends.complete(&rendered, Format::Text, true, at(millisecond));
            text(&complete).contains("testrun_exporter_config_last_reload_successful 1")
        };
        assert!(!loaded(900), "it has not read for itself");
        ends.freshen(&rendered, Format::Text, at(900));
        assert!(loaded(901));
    }

    #[test]
    fn our_own_health_is_at_most_a_second_old_and_of_the_same_snapshot() {
        let (ends, own) = ends();
        let shows = |rendered: &Arc<Rendered>, now| {
            let text = text(&ends.complete(rendered, Format::Text, true, now));
            text.contains("\ntestrun_exporter_config_last_reload_successful 1\n")
        };
        let rendered = Arc::new(render(&Snapshot::default()));
        assert!(!shows(&rendered, at(0)));
        own.config_loaded(at(0), true);
        assert!(!shows(&rendered, at(999)), "it is kept");
        assert!(
            shows(&Arc::new(render(&Snapshot::default())), at(999)),
            "another snapshot"
        );
        own.config_loaded(at(0), false);
        assert!(!shows(&rendered, at(1000)));
        own.config_loaded(at(0), true);
        assert!(shows(&rendered, at(-5000)), "the clock was set back");
    }
}
