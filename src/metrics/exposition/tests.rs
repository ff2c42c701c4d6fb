use std::io::Read as _;

use flate2::read::{GzDecoder, MultiGzDecoder};
use proptest::prelude::*;

use super::*;

/// The gzip member as a client receives it.
fn received(exposition: &Exposition, end: &[u8]) -> Vec<u8> {
    let packed = exposition.packed().unwrap().concat();
    [&packed[..], &exposition.packed_end(end).unwrap()].concat()
}

/// Reads one member with both readers; there is nothing behind it.
fn unpacked(gzip: &[u8]) -> Vec<u8> {
    let mut one = Vec::new();
    let mut reader = GzDecoder::new(gzip);
    reader.read_to_end(&mut one).unwrap();
    assert!(reader.into_inner().is_empty(), "bytes behind the member");
    let mut all = Vec::new();
    MultiGzDecoder::new(gzip).read_to_end(&mut all).unwrap();
    assert_eq!(one, all);
    one
}

/// A segment with the text that it is to be written from.
#[derive(Default)]
struct Source {
    text: String,
    serial: u64,
    /// How often it was written.
    written: u64,
    segment: Segment,
}

impl Source {
    fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            ..Self::default()
        }
    }

    fn change(&mut self, text: &str) {
        text.clone_into(&mut self.text);
        self.serial += 1;
    }

    fn part(&mut self) -> Part<'_, impl FnMut(&mut String) -> u64> {
        let Self {
            text,
            serial,
            written,
            segment,
        } = self;
        Part {
            segment,
            twin: None,
            is_twin: false,
            serial: *serial,
            write: |out: &mut String| {
                *written += 1;
                out.push_str(text);
                1
            },
        }
    }
}

/// Their texts, as they would be written for who reads them.
struct Texts(Vec<String>);

impl Written for Texts {
    fn write(&self, from: usize, text: &mut String) -> Option<usize> {
        text.push_str(self.0.get(from)?);
        Some(from + 1)
    }
}

/// All of them in one stretch.
fn assembled(sources: &mut [Source]) -> Exposition {
    let mut packer = Packer::default();
    let mut assembly = Assembly::new(Format::Text, Some(&mut packer));
    let texts = sources.iter().map(|source| source.text.clone()).collect();
    assembly.push_content(Content::Written(Arc::new(Texts(texts))));
    assembly.push(&mut Stretch::default(), sources.iter_mut().map(Source::part));
    assembly.finish(None)
}

#[test]
fn nothing_is_a_valid_member_too() {
    let exposition = assembled(&mut []);
    assert_eq!(unpacked(&received(&exposition, b"")), b"");
    assert_eq!(unpacked(&received(&exposition, b"up 1\n")), b"up 1\n");
    assert_eq!(exposition.text_bytes(), 0);
}

#[test]
fn an_end_longer_than_a_stored_block_is_cut_into_several() {
    let exposition = assembled(&mut [Source::new("a 1\n")]);
    for length in [
        STORED_BYTES_MAX - 1,
        STORED_BYTES_MAX,
        STORED_BYTES_MAX + 1,
        3 * STORED_BYTES_MAX,
    ] {
        let end = vec![b'#'; length];
        assert_eq!(unpacked(&received(&exposition, &end)), [b"a 1\n", &end[..]].concat());
    }
}

#[test]
fn the_end_is_the_formats_own() {
    let mut packer = Packer::default();
    let open_metrics = Assembly::new(Format::OpenMetrics, Some(&mut packer)).finish(None);
    assert_eq!(open_metrics.text_end("up 1\n"), "up 1\n# EOF\n");
    assert_eq!(assembled(&mut []).text_end("up 1\n"), "up 1\n");
}

#[test]
fn a_piece_is_packed_again_only_if_it_or_the_line_before_it_has_changed() {
    let mut sources = ["a 1\nb 1\n", "c 1\nd 1\n", "e 1\n"].map(Source::new);
    let packed = |sources: &mut [Source; 3], expected: u64| {
        let mut packer = Packer::default();
        let mut assembly = Assembly::new(Format::Text, Some(&mut packer));
        assembly.push(&mut Stretch::default(), sources.iter_mut().map(Source::part));
        let gzip = received(&assembly.finish(None), b"");
        let texts: String = sources.iter().map(|source| &*source.text).collect();
        assert_eq!(unpacked(&gzip), texts.as_bytes());
        assert_eq!(packer.packed, expected);
    };
    packed(&mut sources, 3);
    packed(&mut sources, 0);
    sources[0].change("a 2\nb 1\n");
    packed(&mut sources, 1);
    sources[0].change("a 2\nb 2\n");
    packed(&mut sources, 2);
    sources[1].change("c 1\nd 1\n");
    packed(&mut sources, 0);
    assert_eq!(sources.map(|source| source.written), [3, 3, 1]);
}

#[test]
fn a_twin_lends_its_piece_only_behind_the_same_line() {
    let line = "a{b=\"c\"} 1\n";
    for (head, shared) in [("x 1\n", true), ("a{b=\"c\"} 2\n", false)] {
        let mut packer = Packer::default();
        let mut sources = [Source::new("x 1\n"), Source::new(line)];
        let mut text = Assembly::new(Format::Text, Some(&mut packer));
        text.push(&mut Stretch::default(), sources.iter_mut().map(Source::part));
        text.finish(None);
        let [_, twin] = sources;
        let mut others = [Source::new(head), Source::new(line)];
        let mut other = Assembly::new(Format::OpenMetrics, Some(&mut packer));
        let parts = others.iter_mut().map(|source| Part {
            twin: Some(&twin.segment),
            is_twin: source.text == line,
            ..source.part()
        });
        other.push(&mut Stretch::default(), parts);
        let gzip = received(&other.finish(None), b"");
        assert_eq!(unpacked(&gzip), [head, line].concat().as_bytes());
        // The head is a new one, but for the twin's own.
        assert_eq!(packer.packed, if shared { 3 } else { 4 });
        assert_eq!(others[1].written, u64::from(!shared), "what reads like its twin");
    }
}

type Write = fn(&mut String) -> u64;

fn no_parts<'s>() -> std::iter::Empty<Part<'s, Write>> {
    std::iter::empty()
}

/// Puts stretches together without their segments: what would have to be joined is missing.
fn put_together(stretches: &mut [&mut Stretch], packed: bool, last: Option<&Exposition>) -> Exposition {
    let mut packer = Packer::default();
    let mut assembly = Assembly::new(Format::Text, packed.then_some(&mut packer));
    for stretch in stretches {
        assembly.push(stretch, no_parts());
    }
    assembly.finish(last)
}

#[test]
fn a_stretch_is_joined_again_only_behind_another_line_or_for_its_first_compression() {
    let joined = |packer: Option<&mut Packer>, text: &'static str, before: &'static str| {
        let mut source = Source::new(text);
        let before = Bytes::from_static(before.as_bytes());
        let part = std::iter::once(source.part());
        Stretch::join(part, packer, &before, 0, &mut String::new())
    };
    let packer = &mut Packer::default();
    let mut one = joined(Some(packer), "a 1\nb 1\n", "");
    let mut two = joined(Some(packer), "c 1\n", "b 1\n");
    let whole = put_together(&mut [&mut one, &mut two], true, None);
    assert_eq!(unpacked(&received(&whole, b"")), b"a 1\nb 1\nc 1\n");

    let again = put_together(&mut [&mut one, &mut two], true, Some(&whole));
    let body = |exposition: &Exposition| Arc::clone(exposition.packed().unwrap());
    assert!(Arc::ptr_eq(&body(&again), &body(&whole)), "nothing is new");
    let fewer = put_together(&mut [&mut one], true, Some(&whole));
    assert_eq!(unpacked(&received(&fewer, b"")), b"a 1\nb 1\n");
    let plain = put_together(&mut [&mut one, &mut two], false, Some(&whole));
    assert!(plain.packed().is_none() && plain.packed_end(b"").is_none());
    assert_eq!(plain.text_bytes(), 12);

    // Behind nothing, `two` would refer to a line that is not there.
    let mut alone = [&mut two];
    assert_eq!(
        put_together(&mut alone, true, None).text_bytes(),
        0,
        "it is joined anew, of nothing"
    );
    let mut never_packed = joined(None, "a 1\n", "");
    assert_eq!(put_together(&mut [&mut never_packed], false, None).text_bytes(), 4);
    assert_eq!(put_together(&mut [&mut never_packed], true, None).text_bytes(), 0);
    one.unpack();
    assert_eq!(put_together(&mut [&mut one], true, None).text_bytes(), 0);
    let mut changed = joined(None, "a 1\n", "");
    changed.forget();
    assert_eq!(put_together(&mut [&mut changed], false, None).text_bytes(), 0);
}

#[test]
fn what_is_taken_back_leaves_no_trace() {
    let mut packer = Packer::default();
    let mut assembly = Assembly::new(Format::Text, Some(&mut packer));
    let push = |assembly: &mut Assembly<'_>, text: &str| {
        assembly.push_content(Content::Kept(text.to_owned().into()));
        let mut source = Source::new(text);
        assembly.push(&mut Stretch::default(), std::iter::once(source.part()));
    };
    push(&mut assembly, "a 1\n");
    let mark = assembly.mark();
    push(&mut assembly, "# a head without a sample\n");
    assembly.take_back(mark);
    push(&mut assembly, "b 1\n");
    let exposition = assembly.finish(None);
    assert_eq!(unpacked(&received(&exposition, b"")), b"a 1\nb 1\n");
    assert_eq!(
        (exposition.text_bytes(), &exposition.to_text()[..]),
        (8, &b"a 1\nb 1\n"[..])
    );
}

proptest! {
    #[test]
    fn checksums_of_parts_join_like_crc32fast_joins_them(one in "[a-z]{0,40}", other in "[a-z]{0,3000}") {
        let mut expected = Hasher::new();
        expected.update(one.as_bytes());
        expected.update(other.as_bytes());
        let joined = Shift::of(other.len()).apply(crc32fast::hash(one.as_bytes())) ^ crc32fast::hash(other.as_bytes());
        prop_assert_eq!(joined, expected.finalize());
    }

    #[test]
    fn whatever_the_pieces_are_the_member_is_their_text(
        texts in proptest::collection::vec("([a-c{}=\" ]{0,40}\n){0,8}|\\PC{0,30}\n|x{2000}\n", 0..12),
        end in "[a-z \n]{0,200}",
        stretch in 1_usize..5,
    ) {
        let mut sources: Vec<_> = texts.iter().map(|text| Source::new(text)).collect();
        let mut packer = Packer::default();
        let mut assembly = Assembly::new(Format::Text, Some(&mut packer));
        assembly.push_content(Content::Written(Arc::new(Texts(texts.clone()))));
        for some in sources.chunks_mut(stretch) {
            assembly.push(&mut Stretch::default(), some.iter_mut().map(Source::part));
        }
        let exposition = assembly.finish(None);
        let text = texts.concat() + &end;
        prop_assert_eq!(unpacked(&received(&exposition, end.as_bytes())), text.as_bytes());
        prop_assert_eq!(exposition.text_bytes() + end.len() as u64, text.len() as u64);
        prop_assert_eq!([exposition.to_text(), end.into_bytes()].concat(), text.as_bytes());
    }
}
