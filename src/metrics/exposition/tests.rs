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

/// All of them in one stretch.
fn assembled(segments: &mut [Segment]) -> Exposition {
    let mut packer = Packer::default();
    let mut assembly = Assembly::new(Format::Text, Some(&mut packer));
    let segments = segments.iter_mut().map(|segment| (segment, None));
    assembly.push(&mut Stretch::default(), segments);
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
    let exposition = assembled(&mut [Segment::new("a 1\n", 1)]);
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
    let mut segments = ["a 1\nb 1\n", "c 1\nd 1\n", "e 1\n"].map(|text| Segment::new(text, 1));
    let pieces = |segments: &[Segment; 3]| segments.clone().map(|segment| segment.packed.unwrap().piece.as_ptr());
    assembled(&mut segments);
    let first = pieces(&segments);
    assembled(&mut segments);
    assert_eq!(pieces(&segments), first);
    segments[0] = Segment::new("a 2\nb 1\n", 1);
    assembled(&mut segments);
    let second = pieces(&segments);
    assert_eq!(
        (second[1], second[2]),
        (first[1], first[2]),
        "only its first line has changed"
    );
    segments[0] = Segment::new("a 2\nb 2\n", 1);
    let exposition = assembled(&mut segments);
    let third = pieces(&segments);
    assert!(third[1] != second[1] && third[2] == second[2]);
    assert_eq!(unpacked(&received(&exposition, b"")), b"a 2\nb 2\nc 1\nd 1\ne 1\n");
}

#[test]
fn a_twin_lends_its_piece_only_behind_the_same_line() {
    let mut packer = Packer::default();
    let mut segment = Segment::new("a{b=\"c\"} 1\n", 1);
    let mut head = Segment::new("x 1\n", 1);
    let mut text = Assembly::new(Format::Text, Some(&mut packer));
    text.push(
        &mut Stretch::default(),
        [(&mut head, None), (&mut segment, None)].into_iter(),
    );
    for (head, shared) in [("x 1\n", true), ("a{b=\"c\"} 2\n", false)] {
        let mut twin = Segment::new(segment.text.clone(), 1);
        let mut other = Assembly::new(Format::OpenMetrics, Some(&mut packer));
        let mut segments = [Segment::new(head, 1)];
        other.push(
            &mut Stretch::default(),
            segments.iter_mut().map(|segment| (segment, None)),
        );
        other.push(&mut Stretch::default(), std::iter::once((&mut twin, Some(&segment))));
        let gzip = received(&other.finish(None), b"");
        assert_eq!(unpacked(&gzip), [head.as_bytes(), &segment.text].concat());
        let same = twin.packed.unwrap().piece.as_ptr() == segment.packed.as_ref().unwrap().piece.as_ptr();
        assert_eq!(same, shared);
    }
}

fn no_segments() -> std::iter::Empty<(&'static mut Segment, Option<&'static Segment>)> {
    std::iter::empty()
}

/// Puts stretches together without their segments: what would have to be joined is missing.
fn put_together(stretches: &mut [&mut Stretch], packed: bool, last: Option<&Exposition>) -> Exposition {
    let mut packer = Packer::default();
    let mut assembly = Assembly::new(Format::Text, packed.then_some(&mut packer));
    for stretch in stretches {
        assembly.push(stretch, no_segments());
    }
    assembly.finish(last)
}

#[test]
fn a_stretch_is_joined_again_only_behind_another_line_or_for_its_first_compression() {
    let joined = |packer: Option<&mut Packer>, text: &'static str, before: &'static str| {
        let mut segment = Segment::new(text, 1);
        let before = Bytes::from_static(before.as_bytes());
        Stretch::join(std::iter::once((&mut segment, None)), packer, &before, 0)
    };
    let packer = &mut Packer::default();
    let mut one = joined(Some(packer), "a 1\nb 1\n", "");
    let mut two = joined(Some(packer), "c 1\n", "b 1\n");
    let whole = put_together(&mut [&mut one, &mut two], true, None);
    assert_eq!(unpacked(&received(&whole, b"")), b"a 1\nb 1\nc 1\n");
    assert_eq!(whole.texts().concat(), b"a 1\nb 1\nc 1\n");

    let again = put_together(&mut [&mut one, &mut two], true, Some(&whole));
    assert!(Arc::ptr_eq(&again.texts, &whole.texts), "nothing is new");
    let fewer = put_together(&mut [&mut one], true, Some(&whole));
    assert_eq!(unpacked(&received(&fewer, b"")), b"a 1\nb 1\n");
    let plain = put_together(&mut [&mut one, &mut two], false, Some(&whole));
    assert!(plain.packed().is_none() && plain.packed_end(b"").is_none());
    assert_eq!(plain.to_text(), b"a 1\nb 1\nc 1\n");

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
        let mut segments: Vec<_> = texts.iter().map(|text| Segment::new(text.clone(), 0)).collect();
        let mut packer = Packer::default();
        let mut assembly = Assembly::new(Format::Text, Some(&mut packer));
        for some in segments.chunks_mut(stretch) {
            assembly.push(&mut Stretch::default(), some.iter_mut().map(|segment| (segment, None)));
        }
        let exposition = assembly.finish(None);
        let text = texts.concat() + &end;
        prop_assert_eq!(unpacked(&received(&exposition, end.as_bytes())), text.as_bytes());
        prop_assert_eq!(exposition.text_bytes() + end.len() as u64, text.len() as u64);
        prop_assert_eq!([exposition.to_text(), end.into_bytes()].concat(), text.as_bytes());
    }
}
