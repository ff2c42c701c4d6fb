//! A rendered exposition as scrapes take it: what its text can be written from, and one gzip member whose end is still open.
//! Never renders; a piece whose text has not changed is never compressed again, and one that nobody asks for never at all.
//!
//! Text is not kept: of 100,000 series it is 14 MB, and nearly everybody asks for it compressed. Who does not gets it
//! written anew from the rows, a little at a time. Of each piece are kept its length, so that an answer's is known, and a hash,
//! which tells whether a piece that was written again reads as before.
//!
//! The member is a header, raw deflate pieces and an end. Each piece ends on a byte with an empty block, so that pieces can
//! stand behind one another, and was compressed on its own, but for the last line before it: most of a line repeats the
//! one above, and without that the first line of every piece would be paid in full. What a scrape adds is the end: its
//! fresh text, stored and not compressed, and the checksum, which is combined from those of the pieces.
//!
//! Pieces are small, so that a change costs little; there are thousands, and looking at each of them would cost more than the
//! change. So neighbours are joined into stretches, which are kept, and an exposition is put together from these.

use std::fmt;
use std::hash::BuildHasher as _;
use std::sync::Arc;

use bytes::Bytes;
use crc32fast::Hasher;
use flate2::{Compress, Compression, FlushCompress};
use foldhash::quality::FixedState;

use crate::metrics::text::Format;

/// On text of this kind, level 2 makes 4 % more bytes than level 6 and takes half the time of it or less.
const LEVEL: u32 = 2;

/// The last line before a piece is used up to here: a label can be long, and every piece keeps a copy.
const BEFORE_BYTES_MAX: usize = 1024;

/// What one stored block can hold.
const STORED_BYTES_MAX: usize = 65_535;

/// Deflate, no name, no time, an unknown system.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// One format's exposition, but for the fresh text at its end. Clones share all of it.
#[derive(Debug, Clone)]
pub struct Exposition {
    format: Format,
    contents: Arc<[Content]>,
    text_bytes: u64,
    stretches: usize,
    member: Option<Member>,
}

/// Text that is not kept, but written when somebody reads it: always the same.
pub(crate) trait Written: Send + Sync {
    /// Appends some of it, from this place on. Gives the place at which it goes on; `None` at the end.
    fn write(&self, from: usize, text: &mut String) -> Option<usize>;
}

/// A part of an exposition's text.
#[derive(Clone)]
pub(crate) enum Content {
    Kept(Bytes),
    Written(Arc<dyn Written>),
}

impl fmt::Debug for Content {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kept(text) => write!(formatter, "{} bytes", text.len()),
            Self::Written(_) => formatter.write_str("rows"),
        }
    }
}

/// A gzip member without its end.
#[derive(Debug, Clone)]
struct Member {
    body: Arc<[Bytes]>,
    crc: u32,
}

/// An exposition's text, without its end, piece by piece: none is written before it is asked for.
#[derive(Debug)]
pub struct Reading {
    contents: Arc<[Content]>,
    content: usize,
    /// Where in it.
    place: usize,
}

impl Iterator for Reading {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        loop {
            let piece = match self.contents.get(self.content)? {
                Content::Kept(text) => {
                    self.content += 1;
                    text.clone()
                }
                Content::Written(by) => {
                    let mut text = String::new();
                    match by.write(self.place, &mut text) {
                        Some(next) => self.place = next,
                        None => (self.content, self.place) = (self.content + 1, 0),
                    }
                    text.into()
                }
            };
            if !piece.is_empty() {
                return Some(piece);
            }
        }
    }
}

impl Exposition {
    /// The text in pieces, without its end.
    #[must_use]
    pub fn read(&self) -> Reading {
        Reading {
            contents: Arc::clone(&self.contents),
            content: 0,
            place: 0,
        }
    }

    /// How long the text is.
    #[must_use]
    pub fn text_bytes(&self) -> u64 {
        self.text_bytes
    }

    /// The gzip member without its end, if there is one: see [`crate::metrics::render::Renderer::render_for`].
    #[must_use]
    pub fn packed(&self) -> Option<&Arc<[Bytes]>> {
        self.member.as_ref().map(|member| &member.body)
    }

    /// What ends the text: whole families, and the format's last line.
    #[must_use]
    pub fn text_end(&self, fresh: &str) -> Bytes {
        [fresh, self.format.end()].concat().into()
    }

    /// What ends the gzip member, for the text that [`Self::text_end`] has made.
    #[must_use]
    pub fn packed_end(&self, text_end: &[u8]) -> Option<Bytes> {
        let mut crc = Hasher::new_with_initial(self.member.as_ref()?.crc);
        crc.update(text_end);
        let mut end = Vec::with_capacity(text_end.len() + 64);
        push_stored(&mut end, text_end, true);
        end.extend_from_slice(&crc.finalize().to_le_bytes());
        // The format wants the length modulo 2^32.
        let [a, b, c, d, ..] = (self.text_bytes + text_end.len() as u64).to_le_bytes();
        end.extend_from_slice(&[a, b, c, d]);
        Some(end.into())
    }

    /// The whole text in one piece, for who wants that.
    #[must_use]
    pub fn to_text(&self) -> Vec<u8> {
        self.read().collect::<Vec<_>>().concat()
    }
}

/// Appends blocks that are not compressed; the last one ends the stream if it is to.
fn push_stored(out: &mut Vec<u8>, data: &[u8], ends: bool) {
    let mut chunks = data.chunks(STORED_BYTES_MAX).peekable();
    if chunks.peek().is_none() && ends {
        out.extend_from_slice(&[1, 0, 0, 0xff, 0xff]);
    }
    while let Some(chunk) = chunks.next() {
        let length = u16::try_from(chunk.len()).unwrap_or(u16::MAX);
        out.push(u8::from(ends && chunks.peek().is_none()));
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(chunk);
    }
}

/// What is known of a piece of an exposition's text: whole lines of one family, or some small families.
#[derive(Debug, Clone, Default)]
pub(crate) struct Segment {
    /// What it was written from; see [`Part`].
    serial: Option<u64>,
    bytes: usize,
    hash: u64,
    /// Samples in it.
    series: u64,
    /// Of its text, for what stands behind it.
    last_line: Bytes,
    packed: Option<Packed>,
}

#[derive(Debug, Clone)]
struct Packed {
    /// What the piece may refer to: the end of the text before it.
    before: Bytes,
    /// Mostly a part of its stretch's pieces.
    piece: Bytes,
    crc: u32,
    shift: Shift,
}

impl Segment {
    /// Its text is not compressed any more.
    pub(crate) fn unpack(&mut self) {
        self.packed = None;
    }

    /// It was written, from what has this serial. What reads as before keeps its compressed piece.
    fn read(&mut self, serial: u64, text: &str, series: u64) {
        self.serial = Some(serial);
        let hash = FixedState::default().hash_one(text);
        if (self.bytes, self.hash) == (text.len(), hash) {
            return;
        }
        *self = Self {
            serial: self.serial,
            bytes: text.len(),
            hash,
            series,
            last_line: Bytes::copy_from_slice(last_line(text.as_bytes())),
            packed: None,
        };
    }

    /// It reads like another one, which was written.
    fn read_like(&mut self, other: &Self) {
        let same = self.reads_like(other);
        let packed = self.packed.take().filter(|_| same);
        *self = Self {
            packed,
            last_line: other.last_line.clone(),
            ..*other
        };
    }

    fn reads_like(&self, other: &Self) -> bool {
        (self.bytes, self.hash) == (other.bytes, other.hash)
    }

    fn is_packed_behind(&self, before: &Bytes) -> bool {
        self.packed
            .as_ref()
            .is_some_and(|packed| is_same(&packed.before, before))
    }
}

/// Mostly the very same, which is known without a look at its bytes: in their thousands that would be slow.
fn is_same(one: &Bytes, other: &Bytes) -> bool {
    (one.as_ptr(), one.len()) == (other.as_ptr(), other.len()) || one == other
}

/// A segment, and how its text is written.
pub(crate) struct Part<'s, W> {
    pub(crate) segment: &'s mut Segment,
    /// The segment in its place in the other format.
    pub(crate) twin: Option<&'s Segment>,
    /// Whether the two always read the same.
    pub(crate) is_twin: bool,
    /// Of what the text is written from: another one if that has changed.
    pub(crate) serial: u64,
    /// Appends the text; gives how many samples there are.
    pub(crate) write: W,
}

/// Compresses pieces.
pub(crate) struct Packer {
    deflate: Compress,
    /// How many it has compressed.
    pub(crate) packed: u64,
}

impl Default for Packer {
    fn default() -> Self {
        Self {
            deflate: Compress::new(Compression::new(LEVEL), false),
            packed: 0,
        }
    }
}

impl fmt::Debug for Packer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Packer")
    }
}

impl Packer {
    /// Appends a text's piece to others. The piece itself is not told where it is.
    fn pack(&mut self, text: &[u8], before: &Bytes, pieces: &mut Vec<u8>) -> Packed {
        let Self { deflate, packed } = self;
        *packed += 1;
        let start = pieces.len();
        // More than deflate ever makes of its input, so that one call takes all of it.
        pieces.reserve(text.len() + text.len() / 8 + 128);
        deflate.reset();
        let compressed = (before.is_empty() || deflate.set_dictionary(before).is_ok())
            && deflate.compress_vec(text, pieces, FlushCompress::Sync).is_ok()
            && deflate.total_in() == text.len() as u64
            && pieces.len() < pieces.capacity();
        if !compressed {
            // It cannot fail with these arguments; if it did, what is not compressed is as valid.
            pieces.truncate(start);
            push_stored(pieces, text, false);
        }
        Packed {
            before: before.clone(),
            piece: Bytes::new(),
            crc: crc32fast::hash(text),
            shift: Shift::of(text.len()),
        }
    }
}

/// Neighbouring segments, joined.
#[derive(Debug, Default)]
pub(crate) struct Stretch {
    /// Whether it was joined at all.
    joined: bool,
    text_bytes: u64,
    series: u64,
    /// Of its text, for what stands behind it.
    last_line: Bytes,
    packed: Option<PackedStretch>,
}

#[derive(Debug)]
struct PackedStretch {
    /// What its first piece may refer to.
    before: Bytes,
    pieces: Bytes,
    crc: u32,
    shift: Shift,
}

impl Stretch {
    /// It is made of other segments now.
    pub(crate) fn forget(&mut self) {
        self.joined = false;
    }

    /// Its text is not compressed any more.
    pub(crate) fn unpack(&mut self) {
        self.packed = None;
    }

    fn fits_behind(&self, before: &Bytes, packed: bool) -> bool {
        let fits = |packed: &PackedStretch| is_same(&packed.before, before);
        self.joined && (!packed || self.packed.as_ref().is_some_and(fits))
    }

    /// Joins segments; writes those that are made of something new, and compresses those that read as something new, or are
    /// new behind what stands before them. A twin's piece will do if it has the same text behind the same line.
    /// `pieces_bytes` is what the pieces took last time, or somewhat more; `text` is room to write in.
    fn join<'s, W: FnMut(&mut String) -> u64>(
        parts: impl Iterator<Item = Part<'s, W>>,
        mut packer: Option<&mut Packer>,
        before: &Bytes,
        pieces_bytes: usize,
        text: &mut String,
    ) -> Self {
        let (mut text_bytes, mut series, mut crc) = (0, 0, 0);
        let mut pieces = Vec::with_capacity(pieces_bytes);
        let mut places = Vec::with_capacity(parts.size_hint().0);
        let mut last_line = before;
        for part in parts {
            let Part {
                segment,
                twin,
                is_twin,
                serial,
                mut write,
            } = part;
            let mut is_written = false;
            if segment.serial != Some(serial) {
                if let Some(twin) = twin.filter(|twin| is_twin && twin.serial == Some(serial)) {
                    segment.read_like(twin);
                } else {
                    text.clear();
                    let series = write(text);
                    segment.read(serial, text, series);
                    is_written = true;
                }
            }
            if segment.bytes == 0 {
                continue;
            }
            text_bytes += segment.bytes;
            series += segment.series;
            if let Some(packer) = &mut packer {
                let start = pieces.len();
                if !segment.is_packed_behind(last_line) {
                    segment.packed = twin
                        .filter(|twin| twin.is_packed_behind(last_line) && twin.reads_like(segment))
                        .and_then(|twin| twin.packed.clone());
                }
                if let Some(packed) = &mut segment.packed {
                    pieces.extend_from_slice(&packed.piece);
                    // It may be the same line in another place, which should not be kept for it.
                    if packed.before.as_ptr() != last_line.as_ptr() {
                        packed.before = last_line.clone();
                    }
                } else {
                    if !is_written {
                        text.clear();
                        write(text);
                    }
                    segment.packed = Some(packer.pack(text.as_bytes(), last_line, &mut pieces));
                }
                if let Some(packed) = &mut segment.packed {
                    crc = packed.shift.apply(crc) ^ packed.crc;
                    places.push((&mut packed.piece, start..pieces.len()));
                }
            }
            last_line = &segment.last_line;
        }
        pieces.shrink_to_fit();
        let pieces = Bytes::from(pieces);
        for (piece, place) in places {
            *piece = pieces.slice(place);
        }
        Self {
            joined: true,
            text_bytes: text_bytes as u64,
            series,
            last_line: last_line.clone(),
            packed: packer.is_some().then(|| PackedStretch {
                before: before.clone(),
                pieces,
                crc,
                shift: Shift::of(text_bytes),
            }),
        }
    }
}

/// An exposition being put together, front to back.
pub(crate) struct Assembly<'a> {
    format: Format,
    /// `None` if this one is not to be compressed.
    packer: Option<&'a mut Packer>,
    /// Whether a stretch was joined anew.
    is_new: bool,
    parts: Parts,
    /// Room to write in.
    text: String,
}

/// What an exposition has so far.
#[derive(Default)]
struct Parts {
    contents: Vec<Content>,
    stretches: usize,
    text_bytes: u64,
    last_line: Bytes,
    pieces: Vec<Bytes>,
    crc: u32,
}

/// How far an exposition was; see [`Assembly::take_back`].
pub(crate) struct Mark {
    contents: usize,
    pieces: usize,
    stretches: usize,
    text_bytes: u64,
    last_line: Bytes,
    crc: u32,
}

impl<'a> Assembly<'a> {
    pub(crate) fn new(format: Format, packer: Option<&'a mut Packer>) -> Self {
        Self {
            format,
            packer,
            is_new: false,
            parts: Parts {
                pieces: vec![Bytes::from_static(&GZIP_HEADER)],
                ..Parts::default()
            },
            text: String::new(),
        }
    }

    /// Adds what the text of the next stretches can be written from.
    pub(crate) fn push_content(&mut self, content: Content) {
        self.parts.contents.push(content);
    }

    /// Adds a stretch; if it is new, or new behind what stands before it, it is joined from these parts. Gives how many
    /// samples it has.
    pub(crate) fn push<'s, W: FnMut(&mut String) -> u64>(
        &mut self,
        stretch: &mut Stretch,
        segments: impl Iterator<Item = Part<'s, W>>,
    ) -> u64 {
        let Self {
            packer,
            is_new,
            parts,
            text,
            ..
        } = self;
        if !stretch.fits_behind(&parts.last_line, packer.is_some()) {
            let pieces_bytes = stretch.packed.as_ref().map_or(0, |packed| packed.pieces.len() * 9 / 8);
            *stretch = Stretch::join(segments, packer.as_deref_mut(), &parts.last_line, pieces_bytes, text);
            *is_new = true;
        }
        if stretch.text_bytes == 0 {
            return 0;
        }
        if let Some(packed) = stretch.packed.as_ref().filter(|_| packer.is_some()) {
            parts.crc = packed.shift.apply(parts.crc) ^ packed.crc;
            parts.pieces.push(packed.pieces.clone());
        }
        parts.stretches += 1;
        parts.text_bytes += stretch.text_bytes;
        parts.last_line = stretch.last_line.clone();
        stretch.series
    }

    /// How far it is.
    pub(crate) fn mark(&self) -> Mark {
        let parts = &self.parts;
        Mark {
            contents: parts.contents.len(),
            pieces: parts.pieces.len(),
            stretches: parts.stretches,
            text_bytes: parts.text_bytes,
            last_line: parts.last_line.clone(),
            crc: parts.crc,
        }
    }

    /// Takes back what was added since.
    pub(crate) fn take_back(&mut self, mark: Mark) {
        let parts = &mut self.parts;
        parts.contents.truncate(mark.contents);
        parts.pieces.truncate(mark.pieces);
        (parts.stretches, parts.text_bytes) = (mark.stretches, mark.text_bytes);
        (parts.last_line, parts.crc) = (mark.last_line, mark.crc);
    }

    /// The exposition. Its member is that of `last`, the one before, if that was put together from the same stretches.
    pub(crate) fn finish(self, last: Option<&Exposition>) -> Exposition {
        let is_packed = self.packer.is_some();
        let Parts {
            contents,
            stretches,
            text_bytes,
            pieces,
            crc,
            ..
        } = self.parts;
        // A stretch may have gone without any being new.
        let same = last.filter(|last| !self.is_new && last.stretches == stretches);
        let member = match same.and_then(|last| last.member.as_ref()) {
            _ if !is_packed => None,
            Some(member) => Some(member.clone()),
            // In one piece: a socket takes it with fewer calls.
            None => Some(Member {
                body: Arc::from([Bytes::from(pieces.concat())]),
                crc,
            }),
        };
        Exposition {
            format: self.format,
            contents: contents.into(),
            text_bytes,
            stretches,
            member,
        }
    }
}

/// The last line of a text that ends with a line feed, or as much of its end as is kept.
fn last_line(text: &[u8]) -> &[u8] {
    let from = text.len().saturating_sub(BEFORE_BYTES_MAX);
    let whole = text.len().saturating_sub(1).max(from);
    let feed = text[from..whole].iter().rposition(|byte| *byte == b'\n');
    &text[feed.map_or(from, |place| from + place + 1)..]
}

/// What appending some bytes does to the checksum of what stands before them: it multiplies it by x^(8 * bytes), modulo the
/// polynomial of gzip's CRC-32. Kept with each piece, because finding it takes 20 times as long as using it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shift(u32);

impl Shift {
    fn of(bytes: usize) -> Self {
        // Bit 31 is x^0; from there on, towards bit 0, the powers rise.
        let (mut product, mut power, mut left) = (1 << 31, 1 << 23, bytes);
        while left > 0 {
            if left & 1 == 1 {
                product = multiply(product, power);
            }
            power = multiply(power, power);
            left >>= 1;
        }
        Self(product)
    }

    fn apply(self, crc: u32) -> u32 {
        multiply(self.0, crc)
    }
}

/// The product of two polynomials, modulo that of CRC-32, all with their bits reversed.
fn multiply(a: u32, mut b: u32) -> u32 {
    const POLYNOMIAL: u32 = 0xedb8_8320;
    let mut product = 0;
    for bit in (0..32).rev() {
        product ^= b & 0_u32.wrapping_sub(a >> bit & 1);
        b = b >> 1 ^ POLYNOMIAL & 0_u32.wrapping_sub(b & 1);
    }
    product
}

#[cfg(test)]
mod tests;
