//! Signed notes and verifier keys, C2SP signed-note, with the two Ed25519 signature types we use.
//!
//! The reader accepts only what the writer emits: one blank line before the signatures, canonical
//! base64, no control characters.

mod key;

use std::fmt::{self, Display};
use std::str::FromStr;

use agentca_identity::crypto::{CryptoError, PrivateKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use key::is_name;
pub use key::{SignatureType, VerifierKey};

/// Signs notes with an Ed25519 key under a name.
#[derive(Debug)]
pub struct NoteSigner {
    verifier: VerifierKey,
    key: PrivateKey,
}

impl NoteSigner {
    /// The signer `name` with an Ed25519 key.
    ///
    /// # Errors
    /// [`NoteError::Name`] and [`NoteError::KeyKind`] as for [`VerifierKey::new`].
    pub fn new(
        name: &str,
        signature_type: SignatureType,
        key: PrivateKey,
    ) -> Result<Self, NoteError> {
        let verifier = VerifierKey::new(name, signature_type, key.public_key().clone())?;
        Ok(Self { verifier, key })
    }

    /// The key that verifies what this signs.
    #[must_use]
    pub fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// A signed note over `text`, which ends in a newline: the text, a blank line, our signature.
    ///
    /// # Errors
    /// [`NoteError::Text`] for text no note can carry, [`NoteError::Crypto`] from the backend.
    pub fn sign(&self, text: &str) -> Result<String, NoteError> {
        if !is_text(text) {
            return Err(NoteError::Text);
        }
        Ok(format!(
            "{text}\n{}",
            self.line(self.key.sign(text.as_bytes())?)
        ))
    }

    /// Signs bytes that are not the note text itself, as cosignatures do.
    pub(crate) fn sign_message(&self, message: &[u8]) -> Result<Vec<u8>, NoteError> {
        Ok(self.key.sign(message)?)
    }

    /// A signature line by this key.
    pub(crate) fn line(&self, signature: Vec<u8>) -> SignatureLine {
        SignatureLine {
            name: self.verifier.name().to_owned(),
            key_id: self.verifier.id(),
            signature,
        }
    }
}

/// One signature line of a note, unverified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureLine {
    /// The key's name.
    pub name: String,
    /// The key's id.
    pub key_id: u32,
    /// The signature, without the key id.
    pub signature: Vec<u8>,
}

impl Display for SignatureLine {
    /// The line with its newline.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut blob = self.key_id.to_be_bytes().to_vec();
        blob.extend_from_slice(&self.signature);
        writeln!(f, "\u{2014} {} {}", self.name, STANDARD.encode(blob))
    }
}

impl FromStr for SignatureLine {
    type Err = NoteError;

    /// Reads a line, with or without its newline.
    fn from_str(line: &str) -> Result<Self, NoteError> {
        let line = line.strip_suffix('\n').unwrap_or(line);
        let rest = line
            .strip_prefix("\u{2014} ")
            .ok_or(NoteError::SignatureLine)?;
        let (name, blob) = rest.split_once(' ').ok_or(NoteError::SignatureLine)?;
        let blob = STANDARD
            .decode(blob)
            .map_err(|_| NoteError::SignatureLine)?;
        let (id, signature) = blob
            .split_first_chunk::<4>()
            .ok_or(NoteError::SignatureLine)?;
        if !is_name(name) || signature.is_empty() {
            return Err(NoteError::SignatureLine);
        }
        Ok(Self {
            name: name.to_owned(),
            key_id: u32::from_be_bytes(*id),
            signature: signature.to_vec(),
        })
    }
}

/// A note whose form was checked and whose signatures were not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note<'a> {
    /// The text with its final newline.
    pub text: &'a str,
    /// The signature lines, at least one.
    pub signatures: Vec<SignatureLine>,
}

impl<'a> Note<'a> {
    /// Reads a note of at most [`MAX_NOTE`] bytes and [`MAX_SIGNATURES`] signatures.
    ///
    /// # Errors
    /// [`NoteError`] for anything the writer does not emit.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, NoteError> {
        if bytes.len() > MAX_NOTE {
            return Err(NoteError::Size);
        }
        let note = std::str::from_utf8(bytes).map_err(|_| NoteError::Text)?;
        let split = note.rfind("\n\n").ok_or(NoteError::Text)?;
        let (text, lines) = note.split_at_checked(split + 1).ok_or(NoteError::Text)?;
        let lines = lines.strip_prefix('\n').ok_or(NoteError::Text)?;
        if !is_text(text) || !lines.ends_with('\n') {
            return Err(NoteError::Text);
        }
        let signatures: Vec<_> = lines
            .split_terminator('\n')
            .take(MAX_SIGNATURES + 1)
            .map(SignatureLine::from_str)
            .collect::<Result<_, _>>()?;
        if signatures.len() > MAX_SIGNATURES {
            return Err(NoteError::Size);
        }
        if signatures.is_empty() {
            return Err(NoteError::SignatureLine);
        }
        Ok(Self { text, signatures })
    }

    /// Checks the signature by `key`, which must be there exactly once and of type Ed25519.
    ///
    /// # Errors
    /// [`NoteError::Unsigned`] without such a line, [`NoteError::BadSignature`] when it is wrong.
    pub fn verify(&self, key: &VerifierKey) -> Result<(), NoteError> {
        if key.signature_type() != SignatureType::Ed25519 {
            return Err(NoteError::KeyKind);
        }
        let mut lines = self.signatures.iter().filter(|line| key.names(line));
        let (Some(line), None) = (lines.next(), lines.next()) else {
            return Err(NoteError::Unsigned);
        };
        key.public_key()
            .verify(self.text.as_bytes(), &line.signature)
            .map_err(|_| NoteError::BadSignature)
    }
}

/// The longest note, in bytes.
pub const MAX_NOTE: usize = 64 * 1024;
/// The most signature lines read; the specification asks for at least 16.
pub const MAX_SIGNATURES: usize = 32;

fn is_text(text: &str) -> bool {
    text.len() > 1 && text.ends_with('\n') && !text.contains(|c: char| c < ' ' && c != '\n')
}

/// Why something is not a note, a verifier key, or not signed by the key at hand.
#[derive(Debug, thiserror::Error)]
pub enum NoteError {
    /// Key names have no spaces, control characters or `+`.
    #[error("not a key name: leave out spaces and `+`")]
    Name,
    /// Only Ed25519 keys sign notes, and each type its own kind of message.
    #[error("not the right kind of key: notes need Ed25519")]
    KeyKind,
    /// Not a note text.
    #[error("not a note: text, one blank line, signature lines")]
    Text,
    /// Larger than the limit, or more signatures than the limit.
    #[error("the note is too large")]
    Size,
    /// Not a signature line.
    #[error("not a signature line")]
    SignatureLine,
    /// Not a verifier key line.
    #[error("not a verifier key: <name>+<id>+<key>")]
    VerifierKey,
    /// Not signed by the key, or more than once.
    #[error("the note has no single signature by the key")]
    Unsigned,
    /// The key's signature line is wrong.
    #[error("the note's signature is wrong")]
    BadSignature,
    /// The backend failed.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
}

#[cfg(test)]
mod tests {
    use agentca_identity::crypto::KeyKind;
    use proptest::prelude::*;

    use super::*;

    fn signer(name: &str) -> NoteSigner {
        let key = PrivateKey::generate(KeyKind::Ed25519).unwrap();
        NoteSigner::new(name, SignatureType::Ed25519, key).unwrap()
    }

    /// The example of C2SP signed-note.
    const EXAMPLE_KEY: &str =
        "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
    const EXAMPLE: &str = "This is an example message.\n\n\u{2014} example.com/foo \
        Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";

    #[test]
    fn the_example_of_the_specification_verifies() {
        let key: VerifierKey = EXAMPLE_KEY.parse().unwrap();
        assert_eq!(key.to_string(), EXAMPLE_KEY);
        Note::parse(EXAMPLE.as_bytes())
            .unwrap()
            .verify(&key)
            .unwrap();
        let changed = EXAMPLE.replace("example message", "Example message");
        let error = Note::parse(changed.as_bytes())
            .unwrap()
            .verify(&key)
            .unwrap_err();
        assert!(matches!(error, NoteError::BadSignature));
    }

    #[test]
    fn another_key_or_name_does_not_verify() {
        let (ours, theirs) = (signer("example.org/ca"), signer("example.org/ca"));
        let note = ours.sign("a\nb\nc\n").unwrap();
        let note = Note::parse(note.as_bytes()).unwrap();
        note.verify(ours.verifier()).unwrap();
        assert!(matches!(
            note.verify(theirs.verifier()),
            Err(NoteError::Unsigned)
        ));
    }

    #[test]
    fn a_doubled_signature_line_is_refused() {
        let ours = signer("example.org/ca");
        let note = ours.sign("a\nb\nc\n").unwrap();
        let (_, line) = note.split_once("\n\n").unwrap();
        let doubled = format!("{note}{line}");
        let note = Note::parse(doubled.as_bytes()).unwrap();
        assert!(matches!(
            note.verify(ours.verifier()),
            Err(NoteError::Unsigned)
        ));
    }

    #[test]
    fn malformed_notes_are_refused() {
        let good = signer("example.org/ca").sign("a\nb\nc\n").unwrap();
        for bad in [
            good.trim_end().to_owned(),
            good.replace("\n\n", "\n"),
            good.replace("\u{2014} ", "- "),
            good.replace("a\n", "a\r\n"),
            good.replace("=\n", "\n"),
            format!("{good}\n"),
            format!("{good}trailing\n"),
            String::from("\n\n"),
        ] {
            assert!(Note::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(Note::parse(&[0xff, b'\n', b'\n']).is_err());
    }

    proptest! {
        #[test]
        fn what_the_writer_emits_is_read_back(lines in prop::collection::vec("[^\\x00-\\x1f]{1,20}", 1..6)) {
            let ours = signer("example.org/prod/enforcer/edge-1");
            let text = lines.join("\n") + "\n";
            let written = ours.sign(&text).unwrap();
            let note = Note::parse(written.as_bytes()).unwrap();
            prop_assert_eq!(note.text, &text);
            note.verify(ours.verifier()).unwrap();
            let rewritten: String = note.signatures.iter().map(ToString::to_string).collect();
            prop_assert_eq!(format!("{text}\n{rewritten}"), written);
        }

        #[test]
        fn what_is_read_is_what_the_writer_emits(text in ".*\n\n\u{2014} [a-z/ +]{1,9} [A-Za-z0-9+/=]{0,24}\n") {
            if let Ok(note) = Note::parse(text.as_bytes()) {
                let lines: String = note.signatures.iter().map(ToString::to_string).collect();
                prop_assert_eq!(format!("{}\n{lines}", note.text), text);
            }
        }

        #[test]
        fn no_input_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Note::parse(&bytes);
            let _ = String::from_utf8_lossy(&bytes).parse::<VerifierKey>();
        }
    }
}
