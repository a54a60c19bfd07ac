//! Changing parts of a long text where it stands: a list of thousands of tools is not copied to leave some out.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

/// Parts of a text, in order, and what is put in their places.
pub(super) type Changes = Vec<(Range<usize>, &'static str)>;

/// The text with all of them; `None` when they are not in order or not within it.
pub(super) fn changed(text: Bytes, changes: &[(Range<usize>, &str)]) -> Option<Bytes> {
    let mut text = text
        .try_into_mut()
        .unwrap_or_else(|held| BytesMut::from(&*held));
    // Up to where it was read and written, and how far what was not read yet has moved.
    let (mut from, mut to, mut moved) = (0, 0, 0);
    for (part, with) in changes {
        let (start, mut end) = (part.start + moved, part.end + moved);
        to = keep(&mut text, from..start, to)?;
        if let Some(missing) = (to + with.len()).checked_sub(end) {
            make_room(&mut text, end, missing)?;
            moved += missing;
            end += missing;
        }
        let place = text.get_mut(to..to + with.len())?;
        place.copy_from_slice(with.as_bytes());
        to += with.len();
        from = end;
    }
    let rest = from..text.len();
    let end = keep(&mut text, rest, to)?;
    text.truncate(end);
    Some(text.freeze())
}

/// Moves what stays to where it is written.
fn keep(text: &mut [u8], part: Range<usize>, to: usize) -> Option<usize> {
    if part.end > text.len() || part.start > part.end || to > part.start {
        return None;
    }
    let end = to + part.len();
    if part.start != to {
        text.copy_within(part, to);
    }
    Some(end)
}

fn make_room(text: &mut BytesMut, at: usize, bytes: usize) -> Option<()> {
    let length = text.len();
    if at > length {
        return None;
    }
    if bytes > 0 {
        text.resize(length + bytes, 0);
        text.copy_within(at..length, at + bytes);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::jsonrpc::Edits;

    #[test]
    fn what_is_out_of_order_changes_nothing() {
        let text = || Bytes::from_static(b"abcdef");
        assert_eq!(changed(text(), &[]).unwrap(), "abcdef");
        for wrong in [
            vec![(2..3, ""), (1..2, "")],
            vec![(2..4, "xx"), (3..5, "")],
            vec![(5..7, "")],
            vec![(7..7, "x")],
        ] {
            assert_eq!(changed(text(), &wrong), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn it_changes_what_a_copy_would_have_changed(
            text in "[a-z]{0,40}",
            cuts in prop::collection::vec((0usize..12, 0usize..4, prop::sample::select(vec!["", "-", "+++++"])), 0..6),
            held in any::<bool>(),
        ) {
            let (mut changes, mut at) = (Changes::new(), 0);
            for (gap, length, with) in cuts {
                let (begin, end) = (at + gap, at + gap + length);
                if end <= text.len() {
                    changes.push((begin..end, with));
                    // Two parts that touch and are empty have no order among themselves.
                    at = end + 1;
                }
            }
            let mut copy = Edits::of(&text);
            for (part, with) in &changes {
                copy.replace(part.clone(), *with);
            }
            let bytes = Bytes::from(text.clone().into_bytes());
            let other = held.then(|| bytes.clone());
            prop_assert_eq!(changed(bytes, &changes).unwrap(), copy.done());
            prop_assert!(other.is_none_or(|other| other == text));
        }
    }
}
