use proptest::prelude::*;

use super::*;

#[test]
fn refusals() {
    let cases = [
        ("", PathRefusal::NotAbsolute),
        ("v1", PathRefusal::NotAbsolute),
        ("*", PathRefusal::NotAbsolute),
        ("?x", PathRefusal::NotAbsolute),
        ("//", PathRefusal::EmptySegment),
        ("/a//b", PathRefusal::EmptySegment),
        ("/a/", PathRefusal::EmptySegment),
        ("/a/?q", PathRefusal::EmptySegment),
        ("/.", PathRefusal::DotSegment),
        ("/a/../b", PathRefusal::DotSegment),
        ("/a/..", PathRefusal::DotSegment),
        ("/a;b", PathRefusal::Semicolon),
        ("/a%3Bb", PathRefusal::Semicolon),
        ("/a b", PathRefusal::Character),
        ("/a\\b", PathRefusal::Character),
        ("/a#b", PathRefusal::Character),
        ("/{id}", PathRefusal::Character),
        ("/a\u{e9}", PathRefusal::Character),
        ("/a\u{0}", PathRefusal::Character),
        ("/a%", PathRefusal::Encoding),
        ("/a%2", PathRefusal::Encoding),
        ("/a%zz", PathRefusal::Encoding),
        ("/a%+1", PathRefusal::Encoding),
        ("/a%2Fb", PathRefusal::EncodedDelimiter),
        ("/a%2fb", PathRefusal::EncodedDelimiter),
        ("/a%5cb", PathRefusal::EncodedDelimiter),
        ("/%2e%2e/b", PathRefusal::EncodedDelimiter),
        ("/a%2Etxt", PathRefusal::EncodedDelimiter),
        ("/a%252e", PathRefusal::EncodedDelimiter),
        ("/a%00", PathRefusal::EncodedDelimiter),
        ("/a%0d%0a", PathRefusal::EncodedDelimiter),
        ("/a%7f", PathRefusal::EncodedDelimiter),
        ("/a%c2%85", PathRefusal::EncodedDelimiter),
        ("/a%ff", PathRefusal::NotUtf8),
        ("/%c0%ae", PathRefusal::NotUtf8),
        ("/%c3a", PathRefusal::NotUtf8),
        ("/a?b#c", PathRefusal::Query),
        ("/a?b c", PathRefusal::Query),
        ("/a?\u{e9}", PathRefusal::Query),
    ];
    for (path, refusal) in cases {
        assert_eq!(NormalPath::parse(path), Err(refusal), "{path:?}");
    }
}

#[test]
fn one_written_form() {
    let cases = [
        ("/", "/"),
        ("/v1/accounts/7", "/v1/accounts/7"),
        ("/v1/%61ccounts/%7E", "/v1/accounts/~"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/a%20b%40", "/a%20b%40"),
        ("/a@b:c", "/a@b:c"),
        ("/a...b/.hidden", "/a...b/.hidden"),
        ("/a%3fb", "/a%3Fb"),
        ("/a?x=%2e%2E/../[1]", "/a?x=%2e%2E/../[1]"),
        ("/a?", "/a?"),
    ];
    for (path, form) in cases {
        assert_eq!(
            NormalPath::parse(path).map(|p| p.text),
            Ok(form.to_owned()),
            "{path:?}"
        );
    }
}

#[test]
fn query_is_kept_apart() {
    let path = NormalPath::parse("/a/b?c=/d?e").unwrap();
    assert_eq!(path.path(), "/a/b");
    assert_eq!(path.query(), Some("c=/d?e"));
    assert_eq!(path.segments().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(NormalPath::parse("/a").unwrap().query(), None);
    assert_eq!(NormalPath::parse("/").unwrap().segments().count(), 0);
}

#[test]
fn limits() {
    let most = "/a".repeat(MAX_SEGMENTS);
    assert_eq!(
        NormalPath::parse(&most).unwrap().segments().count(),
        MAX_SEGMENTS
    );
    assert_eq!(
        NormalPath::parse(&format!("{most}/a")),
        Err(PathRefusal::TooManySegments)
    );
    let longest = format!("/{}", "a".repeat(MAX_PATH - 1));
    assert!(NormalPath::parse(&longest).is_ok());
    assert_eq!(
        NormalPath::parse(&format!("{longest}a")),
        Err(PathRefusal::TooLong)
    );
}

/// What any accepted path must be, whoever reads it.
fn assert_unambiguous(path: &NormalPath) {
    assert_eq!(
        NormalPath::parse(path.as_str()).as_ref(),
        Ok(path),
        "not its own normal form"
    );
    assert!(path.as_str().bytes().all(|b| b.is_ascii_graphic()));
    assert!(!path.path().contains(['?', '#', ';', '\\']));
    for segment in path.path().split('/').skip(1) {
        assert!(segment != "." && segment != ".." && (path.path() == "/" || !segment.is_empty()));
        let decoded = lenient_decode(segment);
        assert!(
            !decoded
                .iter()
                .any(|b| b"/\\%".contains(b) || b.is_ascii_control())
        );
        // Decoding a second time changes nothing.
        assert_eq!(
            lenient_decode(&String::from_utf8(decoded.clone()).unwrap()),
            decoded
        );
    }
}

fn lenient_decode(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let mut ahead = bytes.clone();
        let hex = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
        match (byte, hex(ahead.next()), hex(ahead.next())) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).unwrap());
                bytes = ahead;
            }
            _ => out.push(byte),
        }
    }
    out
}

proptest! {
    #[test]
    fn whatever_is_accepted_is_unambiguous(text in "(/([a-c.;%~ \\\\]|%[0-9a-fA-F]{2}|%[c-e][0-9a-f]%[89ab][0-9a-f]){0,6}){1,4}(\\?[ -~]{0,6})?") {
        if let Ok(path) = NormalPath::parse(&text) {
            assert_unambiguous(&path);
        }
    }

    #[test]
    fn nothing_makes_it_panic(text in any::<String>()) {
        if let Ok(path) = NormalPath::parse(&text) {
            assert_unambiguous(&path);
        }
    }

    #[test]
    fn plain_paths_pass_unchanged(text in "(/[A-Za-z0-9_~-]{1,9}){1,6}") {
        let path = NormalPath::parse(&text);
        prop_assert_eq!(path.map(|p| p.text), Ok(text));
    }
}
