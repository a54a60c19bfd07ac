use super::*;

use std::process::Command;

const KINDS: [KeyKind; 2] = [KeyKind::P256, KeyKind::Ed25519];

#[test]
fn sha256_known_answer() {
    let mut pieces = Sha256::new();
    pieces.update(b"a");
    pieces.update(b"bc");
    assert_eq!(pieces.finish(), sha256(b"abc"));
    let hex: String = sha256(b"abc")
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(
        hex,
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
}

#[test]
fn ed25519_known_answer() {
    // RFC 8032 section 7.1, test 2.
    let seed = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
    let public = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
    let signature = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
                     085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";
    let mut der = unhex("302e020100300506032b657004220420");
    der.extend(unhex(seed));
    let key = PrivateKey::from_pkcs8_der(&der).unwrap();
    assert_eq!(
        key.public_key().ed25519_raw().unwrap().to_vec(),
        unhex(public)
    );
    assert_eq!(key.sign(&[0x72]).unwrap(), unhex(signature));
}

#[test]
fn keys_sign_verify_and_round_trip() {
    for kind in KINDS {
        let key = PrivateKey::generate(kind).unwrap();
        assert_eq!(key.kind(), kind);
        let signature = key.sign(b"message").unwrap();
        key.public_key().verify(b"message", &signature).unwrap();
        assert_eq!(
            key.public_key().verify(b"other", &signature),
            Err(CryptoError::Signature)
        );
        let other = PrivateKey::generate(kind).unwrap();
        assert!(other.public_key().verify(b"message", &signature).is_err());

        let again = PrivateKey::from_pem(&key.to_pem()).unwrap();
        assert_eq!(again.pkcs8_der(), key.pkcs8_der());
        let public = PublicKey::from_spki_der(key.public_key().spki_der()).unwrap();
        assert_eq!(&public, again.public_key());
        assert_eq!(public.key_id(), sha256(public.spki_der()));
        assert!(!format!("{key:?}").contains("der"));
    }
}

#[test]
fn encrypted_keys_round_trip() {
    for kind in KINDS {
        let key = PrivateKey::generate(kind).unwrap();
        let text = key.to_encrypted_pem("correct horse").unwrap();
        let again = PrivateKey::from_encrypted_pem(&text, "correct horse").unwrap();
        assert_eq!(again.public_key(), key.public_key());
        assert!(matches!(
            PrivateKey::from_encrypted_pem(&text, "wrong"),
            Err(CryptoError::Passphrase)
        ));
        assert!(matches!(
            PrivateKey::from_pem(&text),
            Err(CryptoError::Encrypted)
        ));
    }
}

#[test]
fn openssl_reads_our_keys_and_we_read_its() {
    let dir = tempfile::tempdir().unwrap();
    for kind in KINDS {
        let key = PrivateKey::generate(kind).unwrap();
        let encrypted = key.to_encrypted_pem("secret").unwrap();
        for text in [&key.to_pem(), &encrypted] {
            let path = dir.path().join("key.pem");
            std::fs::write(&path, text.as_bytes()).unwrap();
            let output = Command::new("openssl")
                .args([
                    "pkey",
                    "-pubout",
                    "-outform",
                    "DER",
                    "-passin",
                    "pass:secret",
                    "-in",
                ])
                .arg(&path)
                .output()
                .unwrap();
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            assert_eq!(output.stdout, key.public_key().spki_der());
        }
    }
    for algorithm in [
        &["EC", "-pkeyopt", "ec_paramgen_curve:P-256"][..],
        &["ED25519"][..],
    ] {
        let output = Command::new("openssl")
            .args(["genpkey", "-algorithm"])
            .args(algorithm)
            .output()
            .unwrap();
        let key = PrivateKey::from_pem(std::str::from_utf8(&output.stdout).unwrap()).unwrap();
        key.public_key()
            .verify(b"m", &key.sign(b"m").unwrap())
            .unwrap();
    }
}

#[test]
fn other_keys_are_refused() {
    let rsa = Command::new("openssl")
        .args([
            "genpkey",
            "-algorithm",
            "RSA",
            "-pkeyopt",
            "rsa_keygen_bits:2048",
        ])
        .output()
        .unwrap();
    let p384 = Command::new("openssl")
        .args([
            "genpkey",
            "-algorithm",
            "EC",
            "-pkeyopt",
            "ec_paramgen_curve:P-384",
        ])
        .output()
        .unwrap();
    for output in [rsa, p384] {
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(matches!(
            PrivateKey::from_pem(&text),
            Err(CryptoError::PrivateKey)
        ));
    }
    for kind in KINDS {
        let key = PrivateKey::generate(kind).unwrap();
        let spki = key.public_key().spki_der();
        for length in 0..spki.len() {
            assert!(PublicKey::from_spki_der(&spki[..length]).is_err());
        }
        assert!(PublicKey::from_spki_der(&[spki, &[0]].concat()).is_err());
        let der = key.pkcs8_der();
        for length in 0..der.len() {
            assert!(PrivateKey::from_pkcs8_der(&der[..length]).is_err());
        }
    }
}

#[test]
fn the_provider_speaks_tls13_only() {
    let provider = provider();
    assert!(!provider.cipher_suites.is_empty());
    assert!(
        provider
            .cipher_suites
            .iter()
            .all(|suite| suite.tls13().is_some())
    );
    if cfg!(feature = "aws-lc") {
        let first = provider.kx_groups.first().unwrap().name();
        assert_eq!(first, rustls::NamedGroup::X25519MLKEM768);
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap())
        .collect()
}
