//! Scopes: what an agent may call, and how patterns match.
//!
//! A scope is `segment(:segment)*`; a segment is 1 to 128 of `A–Z a–z 0–9 _ - .`; the whole is at
//! most 255 bytes and case-sensitive. In a grant or certificate the last character may be `*`:
//!
//! - after other characters of the last segment it stands for any rest of that segment, the empty
//!   rest included: `mcp:github:get_*` matches `mcp:github:get_issue` and `mcp:github:get_`, not
//!   `mcp:github:get_a:b`;
//! - as the whole last segment it stands for one or more segments: `payments:*` matches
//!   `payments:read` and `payments:eu:read`, not `payments`.
//!
//! A bare `*` is refused. Any two patterns are either nested or disjoint, which is what makes
//! [`ScopeSet::intersect`] exact.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

use crate::text::serde_as_text;

/// A scope as a grant or certificate holds it: exact, or a pattern ending in `*`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope(Arc<str>);

impl Scope {
    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this scope allows a call that requires `required`.
    pub fn matches(&self, required: &RequiredScope) -> bool {
        match self.shape() {
            Shape::Exact(text) => text == &*required.0,
            Shape::WithinSegment(prefix) => required
                .0
                .strip_prefix(prefix)
                .is_some_and(|rest| !rest.contains(':')),
            Shape::Segments(prefix) => required.0.starts_with(prefix),
        }
    }

    /// Whether everything `other` matches is matched by this scope too.
    pub fn covers(&self, other: &Self) -> bool {
        match (self.shape(), other.shape()) {
            (Shape::Exact(mine), Shape::Exact(theirs)) => mine == theirs,
            (Shape::Exact(_), _) | (Shape::WithinSegment(_), Shape::Segments(_)) => false,
            (Shape::WithinSegment(mine), Shape::Exact(theirs) | Shape::WithinSegment(theirs)) => {
                theirs
                    .strip_prefix(mine)
                    .is_some_and(|rest| !rest.contains(':'))
            }
            (
                Shape::Segments(mine),
                Shape::Exact(theirs) | Shape::WithinSegment(theirs) | Shape::Segments(theirs),
            ) => theirs.starts_with(mine),
        }
    }

    fn shape(&self) -> Shape<'_> {
        match self.0.strip_suffix('*') {
            None => Shape::Exact(&self.0),
            Some(prefix) if prefix.ends_with(':') => Shape::Segments(prefix),
            Some(prefix) => Shape::WithinSegment(prefix),
        }
    }
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "*" {
            return Err(ScopeError::Everything);
        }
        check_length(text)?;
        let mut segments = text.split(':');
        let last = segments.next_back().ok_or(ScopeError::Segment)?;
        segments.try_for_each(check_segment)?;
        match last.strip_suffix('*') {
            None => check_segment(last)?,
            Some("") => {}
            Some(start) => {
                check_segment(start)?;
                if last.len() > MAX_SEGMENT {
                    return Err(ScopeError::Segment);
                }
            }
        }
        Ok(Self(text.into()))
    }
}

/// A scope that a call requires: never a pattern.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequiredScope(Arc<str>);

impl RequiredScope {
    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RequiredScope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        check_length(text)?;
        if text.contains('*') {
            return Err(ScopeError::Pattern);
        }
        text.split(':').try_for_each(check_segment)?;
        Ok(Self(text.into()))
    }
}

impl From<RequiredScope> for Scope {
    fn from(scope: RequiredScope) -> Self {
        Self(scope.0)
    }
}

/// The scopes of a grant or certificate: sorted by bytes, distinct, at most 128; may be empty.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct ScopeSet(Arc<[Scope]>);

impl ScopeSet {
    /// Most scopes in a set.
    pub const MAX: usize = 128;

    /// Sorts and dedups what people write.
    pub fn new(scopes: impl IntoIterator<Item = Scope>) -> Result<Self, ScopeError> {
        let scopes: BTreeSet<Scope> = scopes.into_iter().collect();
        if scopes.len() > Self::MAX {
            return Err(ScopeError::TooMany);
        }
        Ok(Self(scopes.into_iter().collect()))
    }

    /// Reads what a certificate or a record holds: refuses what is not sorted and distinct.
    pub fn from_canonical(scopes: Vec<Scope>) -> Result<Self, ScopeError> {
        if scopes.len() > Self::MAX {
            return Err(ScopeError::TooMany);
        }
        if !scopes.is_sorted_by(|left, right| left < right) {
            return Err(ScopeError::Order);
        }
        Ok(Self(scopes.into()))
    }

    /// The scope that allows a call requiring `required`, if one does.
    pub fn permits(&self, required: &RequiredScope) -> Option<&Scope> {
        self.0.iter().find(|scope| scope.matches(required))
    }

    /// Whether every scope here is covered by one of `other`.
    pub fn is_within(&self, other: &Self) -> bool {
        self.first_outside(other).is_none()
    }

    /// The first scope here that no scope of `other` covers.
    pub fn first_outside(&self, other: &Self) -> Option<&Scope> {
        self.0
            .iter()
            .find(|scope| !other.0.iter().any(|wide| wide.covers(scope)))
    }

    /// What both sets allow, exactly. It can hold more scopes than either set (at most both
    /// together); more than [`ScopeSet::MAX`] can be enforced but not certified.
    pub fn intersect(&self, other: &Self) -> Self {
        let mine = self
            .0
            .iter()
            .filter(|scope| other.0.iter().any(|wide| wide.covers(scope)));
        let theirs = other
            .0
            .iter()
            .filter(|scope| self.0.iter().any(|wide| wide.covers(scope)));
        let both: BTreeSet<Scope> = mine.chain(theirs).cloned().collect();
        Self(both.into_iter().collect())
    }

    /// The scopes in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Scope> {
        self.0.iter()
    }

    /// The scopes in order.
    pub fn as_slice(&self) -> &[Scope] {
        &self.0
    }

    /// How many scopes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is allowed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> IntoIterator for &'a ScopeSet {
    type Item = &'a Scope;
    type IntoIter = std::slice::Iter<'a, Scope>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Debug for ScopeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// The scopes separated by one space, as upstreams receive them.
impl fmt::Display for ScopeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, scope) in self.iter().enumerate() {
            if position > 0 {
                f.write_str(" ")?;
            }
            f.write_str(scope.as_str())?;
        }
        Ok(())
    }
}

impl Serialize for ScopeSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for ScopeSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_canonical(Vec::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

macro_rules! text_traits {
    ($($kind:ty),+) => {$(
        impl AsRef<str> for $kind {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    )+};
}

text_traits!(Scope, RequiredScope);
serde_as_text!(Scope, RequiredScope);

/// A text is not a scope, or a list not a set of scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ScopeError {
    /// Longer than 255 bytes.
    #[error("a scope is at most 255 bytes long")]
    TooLong,
    /// A segment is empty, too long or has other characters.
    #[error(
        "not a scope, use segments of 1 to 128 of A-Z a-z 0-9 _ - . joined by `:`; a `*` may only be its end"
    )]
    Segment,
    /// A bare `*`.
    #[error("a bare `*` would allow everything, name at least the first segment")]
    Everything,
    /// A `*` in a scope that a call requires.
    #[error("a required scope names one thing and can't hold `*`")]
    Pattern,
    /// More than 128 scopes.
    #[error("more than 128 scopes, use patterns")]
    TooMany,
    /// Not sorted, or not distinct.
    #[error("scopes must be sorted and distinct")]
    Order,
}

const MAX_SEGMENT: usize = 128;
const MAX_SCOPE: usize = 255;

/// What a scope's text means; the prefix keeps everything before the `*`.
enum Shape<'a> {
    Exact(&'a str),
    WithinSegment(&'a str),
    Segments(&'a str),
}

fn check_length(text: &str) -> Result<(), ScopeError> {
    if text.len() > MAX_SCOPE {
        Err(ScopeError::TooLong)
    } else {
        Ok(())
    }
}

fn check_segment(segment: &str) -> Result<(), ScopeError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if (1..=MAX_SEGMENT).contains(&segment.len()) && segment.bytes().all(allowed) {
        Ok(())
    } else {
        Err(ScopeError::Segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Matching read off the definition, segment by segment.
    fn naive(scope: &str, required: &str) -> bool {
        let pattern: Vec<&str> = scope.split(':').collect();
        let call: Vec<&str> = required.split(':').collect();
        let (last, before) = pattern.split_last().unwrap();
        if call.len() < pattern.len() || call[..before.len()] != *before {
            return false;
        }
        match last.strip_suffix('*') {
            Some("") => true,
            Some(start) => call.len() == pattern.len() && call[before.len()].starts_with(start),
            None => call.len() == pattern.len() && call[before.len()] == *last,
        }
    }

    /// A small alphabet, so that matches happen.
    fn required() -> impl Strategy<Value = RequiredScope> {
        prop::collection::vec("[ab]{1,3}", 1..4).prop_map(|s| s.join(":").parse().unwrap())
    }

    fn scope() -> impl Strategy<Value = Scope> {
        (prop::collection::vec("[ab]{1,3}", 1..4), 0..3).prop_map(|(segments, end)| {
            let text = segments.join(":");
            match end {
                0 => text.parse().unwrap(),
                1 => format!("{text}*").parse().unwrap(),
                _ => format!("{text}:*").parse().unwrap(),
            }
        })
    }

    fn set() -> impl Strategy<Value = ScopeSet> {
        prop::collection::vec(scope(), 0..5).prop_map(|scopes| ScopeSet::new(scopes).unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn matching_equals_the_reference(scope in scope(), required in required()) {
            prop_assert_eq!(scope.matches(&required), naive(scope.as_str(), required.as_str()));
        }

        #[test]
        fn round_trip(scope in scope(), set in set()) {
            prop_assert_eq!(&scope.as_str().parse::<Scope>().unwrap(), &scope);
            prop_assert_eq!(ScopeSet::from_canonical(set.as_slice().to_vec()).unwrap(), set);
        }

        #[test]
        fn covered_is_never_wider(wide in scope(), narrow in scope(), required in required()) {
            if wide.covers(&narrow) && narrow.matches(&required) {
                prop_assert!(wide.matches(&required));
            }
        }

        #[test]
        fn patterns_are_nested_or_disjoint(one in scope(), other in scope(), call in required()) {
            if one.matches(&call) && other.matches(&call) {
                prop_assert!(one.covers(&other) || other.covers(&one));
            }
        }

        #[test]
        fn within_is_never_wider(small in set(), big in set(), call in required()) {
            if small.is_within(&big) && small.permits(&call).is_some() {
                prop_assert!(big.permits(&call).is_some());
            }
        }

        #[test]
        fn intersection_is_exact(one in set(), other in set(), call in required()) {
            let both = one.intersect(&other);
            prop_assert!(both.is_within(&one) && both.is_within(&other));
            prop_assert_eq!(
                both.permits(&call).is_some(),
                one.permits(&call).is_some() && other.permits(&call).is_some()
            );
            prop_assert_eq!(&both, &other.intersect(&one));
        }

        #[test]
        fn any_text_is_judged_without_panic(text in "\\PC{0,20}|[a:*.]{0,12}") {
            if let Ok(scope) = text.parse::<Scope>() {
                prop_assert_eq!(scope.as_str(), text);
            }
        }
    }

    fn matches(scope: &str, required: &str) -> bool {
        scope
            .parse::<Scope>()
            .unwrap()
            .matches(&required.parse().unwrap())
    }

    #[test]
    fn the_documented_cases() {
        assert!(matches("payments:*", "payments:read"));
        assert!(matches("payments:*", "payments:eu:read"));
        assert!(!matches("payments:*", "payments"));
        assert!(!matches("payments:*", "paymentsx:read"));
        assert!(matches("mcp:github:get_*", "mcp:github:get_issue"));
        assert!(matches("mcp:github:get_*", "mcp:github:get_"));
        assert!(!matches("mcp:github:get_*", "mcp:github:get_a:b"));
        assert!(!matches("mcp:github:get_*", "mcp:github:get"));
        assert!(matches("payments:read", "payments:read"));
        assert!(!matches("payments:read", "Payments:read"));
        assert!(!matches("payments:read", "payments:read:all"));
    }

    #[test]
    fn wrong_texts_are_refused() {
        let long_segment = "a".repeat(129);
        let long_pattern = format!("{}*", "a".repeat(128));
        let long = format!("{0}:{0}", "a".repeat(128));
        for (text, error) in [
            ("", ScopeError::Segment),
            ("*", ScopeError::Everything),
            (":", ScopeError::Segment),
            ("a:", ScopeError::Segment),
            (":a", ScopeError::Segment),
            ("a::b", ScopeError::Segment),
            ("a:**", ScopeError::Segment),
            ("*:a", ScopeError::Segment),
            ("a*:b", ScopeError::Segment),
            ("a:*b", ScopeError::Segment),
            (":*", ScopeError::Segment),
            ("a b", ScopeError::Segment),
            ("a/b", ScopeError::Segment),
            ("é", ScopeError::Segment),
            (&long_segment, ScopeError::Segment),
            (&long_pattern, ScopeError::Segment),
            (&long, ScopeError::TooLong),
        ] {
            assert_eq!(text.parse::<Scope>(), Err(error), "{text}");
        }
        assert_eq!("a:*".parse::<RequiredScope>(), Err(ScopeError::Pattern));
        assert_eq!("a*".parse::<RequiredScope>(), Err(ScopeError::Pattern));
        assert!("a".repeat(128).parse::<RequiredScope>().is_ok());
    }

    #[test]
    fn sets_are_sorted_distinct_and_bounded() {
        let scope = |text: &str| text.parse::<Scope>().unwrap();
        let set = ScopeSet::new([scope("b"), scope("a"), scope("b")]).unwrap();
        assert_eq!(set.to_string(), "a b");
        assert_eq!(
            ScopeSet::from_canonical(vec![scope("b"), scope("a")]),
            Err(ScopeError::Order)
        );
        assert_eq!(
            ScopeSet::from_canonical(vec![scope("a"), scope("a")]),
            Err(ScopeError::Order)
        );
        let many = (0..=ScopeSet::MAX).map(|number| scope(&format!("s{number}")));
        assert_eq!(ScopeSet::new(many), Err(ScopeError::TooMany));
    }
}
