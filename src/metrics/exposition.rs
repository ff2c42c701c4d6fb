//! A rendered exposition as scrapes take it: pieces of text, and one gzip member whose end is still open.
//! Never renders; a piece whose text has not changed is never compressed again, and one that nobody asks for never at all.
//!
//! The member is a header, raw deflate pieces and an end. Each piece ends on a byte with an empty block, so that pieces can
//! stand behind one another, and was compressed on its own, but for the last line before it: most of a line repeats the
//! one above, and without that the first line of every piece would be paid in full. What a scrape adds is the end: its
//! fresh text, stored and not compressed, and the checksum, which is combined from those of the pieces.
//!
//! Pieces are small, so that a change costs little; there are thousands, and looking at each of them would cost more than the
//! change. So neighbours are joined into stretches, which are kept, and an exposition is put together from these.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use crc32fast::Hasher;
use flate2::{Compress, Compression, FlushCompress};

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
    texts: Arc<Texts>,
    text_bytes: u64,
    member: Option<Member>,
}

#[derive(Debug)]
struct Texts {
    stretches: Vec<Arc<[Bytes]>>,
    /// All of them in one list, made when somebody wants that.
    list: OnceLock<Arc<[Bytes]>>,
}

/// A gzip member without its end.
#[derive(Debug, Clone)]
struct Member {
    body: Arc<[Bytes]>,
    crc: u32,
}

impl Exposition {
    /// The text in pieces, without its end.
    #[must_use]
    pub fn texts(&self) -> &Arc<[Bytes]> {
        let Texts { stretches, list } = &*self.texts;
        list.get_or_init(|| stretches.iter().flat_map(|texts| texts.iter().cloned()).collect())
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
        let stretches: Vec<_> = self.texts.stretches.iter().map(|texts| texts.concat()).collect();
        stretches.concat()
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

/// A piece of an exposition's text: whole lines of one family, or some small families.
#[derive(Debug, Clone, Default)]
pub(crate) struct Segment {
    pub(crate) text: Bytes,
    /// Samples in it.
    pub(crate) series: u64,
    /// Where its last line begins.
    last_line: usize,
    packed: Option<Packed>,
}

#[derive(Debug, Clone)]
struct Packed {
    /// What the piece may refer to: the end of the text before it. It keeps that text.
    before: Bytes,
    piece: Bytes,
    crc: u32,
    shift: Shift,
}

impl Segment {
    pub(crate) fn new(text: impl Into<Bytes>, series: u64) -> Self {
        let text = text.into();
        Self {
            last_line: last_line(&text),
            text,
            series,
            packed: None,
        }
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

/// Compresses pieces.
pub(crate) struct Packer {
    deflate: Compress,
    piece: Vec<u8>,
}

impl Default for Packer {
    fn default() -> Self {
        Self {
            deflate: Compress::new(Compression::new(LEVEL), false),
            piece: Vec::new(),
        }
    }
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Packer")
    }
}

impl Packer {
    fn pack(&mut self, text: &Bytes, before: &Bytes) -> Packed {
        let Self { deflate, piece } = self;
        piece.clear();
        // More than deflate ever makes of its input, so that one call takes all of it.
        piece.reserve(text.len() + text.len() / 8 + 128);
        deflate.reset();
        let compressed = (before.is_empty() || deflate.set_dictionary(before).is_ok())
            && deflate.compress_vec(text, piece, FlushCompress::Sync).is_ok()
            && deflate.total_in() == text.len() as u64
            && piece.len() < piece.capacity();
        if !compressed {
            // It cannot fail with these arguments; if it did, what is not compressed is as valid.
            piece.clear();
            push_stored(piece, text, false);
        }
        Packed {
            before: before.clone(),
            piece: Bytes::copy_from_slice(piece),
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
    texts: Arc<[Bytes]>,
    text_bytes: u64,
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
    fn fits_behind(&self, before: &Bytes, packed: bool) -> bool {
        let fits = |packed: &PackedStretch| is_same(&packed.before, before);
        self.joined && (!packed || self.packed.as_ref().is_some_and(fits))
    }

    /// Joins segments; compresses those that are new, or new behind what stands before them. A segment's twin stands in its
    /// place in another exposition; its piece will do if it has the same text behind the same line. `pieces_bytes` is what the
    /// pieces took last time, or somewhat more.
    fn join<'s>(
        segments: impl Iterator<Item = (&'s mut Segment, Option<&'s Segment>)>,
        mut packer: Option<&mut Packer>,
        before: &Bytes,
        pieces_bytes: usize,
    ) -> Self {
        let (mut texts, mut text_bytes) = (Vec::with_capacity(segments.size_hint().0), 0);
        let (mut pieces, mut crc) = (Vec::with_capacity(pieces_bytes), 0);
        let mut last_line = before.clone();
        for (segment, twin) in segments {
            if segment.text.is_empty() {
                continue;
            }
            if let Some(packer) = &mut packer {
                match &mut segment.packed {
                    // It may be the same line of a text that is not there any more, and should not be kept for it.
                    Some(packed) if is_same(&packed.before, &last_line) => packed.before = last_line,
                    _ => {
                        let twin = twin.filter(|twin| twin.is_packed_behind(&last_line) && twin.text == segment.text);
                        segment.packed = match twin {
                            Some(twin) => twin.packed.clone(),
                            None => Some(packer.pack(&segment.text, &last_line)),
                        };
                    }
                }
                if let Some(packed) = &segment.packed {
                    pieces.extend_from_slice(&packed.piece);
                    crc = packed.shift.apply(crc) ^ packed.crc;
                }
            }
            text_bytes += segment.text.len();
            last_line = segment.text.slice(segment.last_line..);
            texts.push(segment.text.clone());
        }
        Self {
            joined: true,
            texts: texts.into(),
            text_bytes: text_bytes as u64,
            last_line,
            packed: packer.is_some().then(|| PackedStretch {
                before: before.clone(),
                pieces: pieces.into(),
                crc,
                shift: Shift::of(text_bytes),
            }),
        }
    }
}

/// An exposition being put together from its stretches, front to back.
pub(crate) struct Assembly<'a> {
    format: Format,
    /// `None` if this one is not to be compressed.
    packer: Option<&'a mut Packer>,
    /// Whether a stretch was joined anew.
    is_new: bool,
    texts: Vec<Arc<[Bytes]>>,
    text_bytes: u64,
    last_line: Bytes,
    pieces: Vec<Bytes>,
    crc: u32,
}

impl<'a> Assembly<'a> {
    pub(crate) fn new(format: Format, packer: Option<&'a mut Packer>) -> Self {
        Self {
            format,
            packer,
            is_new: false,
            texts: Vec::new(),
            text_bytes: 0,
            last_line: Bytes::new(),
            pieces: vec![Bytes::from_static(&GZIP_HEADER)],
            crc: 0,
        }
    }

    /// Adds a stretch; if it is new, or new behind what stands before it, it is joined from these segments, each with its
    /// twin.
    pub(crate) fn push<'s>(
        &mut self,
        stretch: &mut Stretch,
        segments: impl Iterator<Item = (&'s mut Segment, Option<&'s Segment>)>,
    ) {
        if !stretch.fits_behind(&self.last_line, self.packer.is_some()) {
            let pieces_bytes = stretch.packed.as_ref().map_or(0, |packed| packed.pieces.len() * 9 / 8);
            *stretch = Stretch::join(segments, self.packer.as_deref_mut(), &self.last_line, pieces_bytes);
            self.is_new = true;
        }
        if stretch.text_bytes == 0 {
            return;
        }
        if let Some(packed) = stretch.packed.as_ref().filter(|_| self.packer.is_some()) {
            self.crc = packed.shift.apply(self.crc) ^ packed.crc;
            self.pieces.push(packed.pieces.clone());
        }
        self.texts.push(Arc::clone(&stretch.texts));
        self.text_bytes += stretch.text_bytes;
        self.last_line = stretch.last_line.clone();
    }

    /// The exposition. It is `last`, the one before, if that was put together from the same stretches.
    pub(crate) fn finish(self, last: Option<&Exposition>) -> Exposition {
        let is_packed = self.packer.is_some();
        let same = |last: &&Exposition| {
            // A stretch may have gone without any being new.
            last.member.is_some() == is_packed && last.texts.stretches.len() == self.texts.len()
        };
        if let Some(last) = last.filter(|_| !self.is_new).filter(same) {
            return last.clone();
        }
        Exposition {
            format: self.format,
            texts: Arc::new(Texts {
                stretches: self.texts,
                list: OnceLock::new(),
            }),
            text_bytes: self.text_bytes,
            // In one piece: a socket takes it with fewer calls.
            member: is_packed.then(|| Member {
                body: Arc::from([Bytes::from(self.pieces.concat())]),
                crc: self.crc,
            }),
        }
    }
}

/// Where the last line of a text that ends with a line feed begins, or as much of its end as is kept.
fn last_line(text: &[u8]) -> usize {
    let from = text.len().saturating_sub(BEFORE_BYTES_MAX);
    let whole = text.len().saturating_sub(1).max(from);
    let feed = text[from..whole].iter().rposition(|byte| *byte == b'\n');
    feed.map_or(from, |place| from + place + 1)
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
