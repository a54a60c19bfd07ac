//! Changing parts of a text that was read, and nothing else of it.

use std::ops::Range;

/// A text and what is put in place of its parts.
#[derive(Debug)]
pub(crate) struct Edits<'a> {
    text: &'a str,
    parts: Vec<(Range<usize>, String)>,
}

impl<'a> Edits<'a> {
    pub(crate) fn of(text: &'a str) -> Self {
        Self {
            text,
            parts: Vec::new(),
        }
    }

    /// Puts `with` where `range` stands; ranges never overlap.
    pub(crate) fn replace(&mut self, range: Range<usize>, with: impl Into<String>) {
        self.parts.push((range, with.into()));
    }

    /// The text with all of them.
    pub(crate) fn done(mut self) -> String {
        self.parts.sort_by_key(|(range, _)| range.start);
        let added: usize = self.parts.iter().map(|(_, with)| with.len()).sum();
        let mut out = String::with_capacity(self.text.len() + added);
        let mut at = 0;
        for (range, with) in &self.parts {
            out.push_str(self.text.get(at..range.start).unwrap_or_default());
            out.push_str(with);
            at = range.end;
        }
        out.push_str(self.text.get(at..).unwrap_or_default());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_replaced_in_their_places() {
        let mut edits = Edits::of("abcdef");
        edits.replace(4..6, "EF!");
        edits.replace(1..1, "-");
        edits.replace(2..3, "");
        assert_eq!(edits.done(), "a-bdEF!");
        assert_eq!(Edits::of("x").done(), "x");
    }
}
