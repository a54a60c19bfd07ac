use super::*;
use crate::certificate::Certificate;
use crate::crypto::{KeyKind, PrivateKey};
use crate::testing::{HOUR, Pki, key};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// Two ends, each with a verifier, and a clock that tests turn.
struct Ends {
    pki: Pki,
    clock: Arc<AtomicI64>,
    server: (Vec<CertificateDer<'static>>, PrivateKey, Arc<PeerVerifier>),
    client: Arc<PeerVerifier>,
}

impl Ends {
    fn new(roles: &[Role], extra: Option<Extra>) -> Self {
        let pki = Pki::new();
        let clock = Arc::new(AtomicI64::new(pki.now.millis()));
        let reading = clock.clone();
        let now: Clock = Arc::new(move || Timestamp::from_millis(reading.load(Ordering::SeqCst)));
        let server_key = key(KeyKind::P256);
        let chain = chain(&pki, &pki.enforcer(&server_key));
        let verifier = Arc::new(PeerVerifier::new(pki.anchor(), roles, now.clone(), extra));
        let client = Arc::new(PeerVerifier::new(
            pki.anchor(),
            &[Role::Enforcer],
            now,
            None,
        ));
        Self {
            pki,
            clock,
            server: (chain, server_key, verifier),
            client,
        }
    }

    fn verifier(&self) -> &PeerVerifier {
        &self.server.2
    }

    /// Shakes hands; what the server said, and what the client said.
    fn shake(
        &self,
        identity: Option<(Vec<CertificateDer<'static>>, &PrivateKey)>,
    ) -> Result<Vec<CertificateDer<'static>>, Error> {
        let (chain, server_key, verifier) = &self.server;
        let server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier.clone())
            .with_single_cert(chain.clone(), private(server_key))
            .unwrap();
        let client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(self.client.clone());
        let client = match identity {
            Some((chain, key)) => client.with_client_auth_cert(chain, private(key)).unwrap(),
            None => client.with_no_client_auth(),
        };
        let name = ServerName::try_from("a-name-that-nobody-asks-for").unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
        let mut server = ServerConnection::new(Arc::new(server)).unwrap();
        for _ in 0..8 {
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).unwrap();
            server.read_tls(&mut bytes.as_slice()).unwrap();
            let served = server.process_new_packets();
            let mut bytes = Vec::new();
            server.write_tls(&mut bytes).unwrap();
            client.read_tls(&mut bytes.as_slice()).unwrap();
            let heard = client.process_new_packets();
            served?;
            heard?;
        }
        assert!(!client.is_handshaking() && !server.is_handshaking());
        Ok(server.peer_certificates().unwrap().to_vec())
    }
}

fn chain(pki: &Pki, leaf: &Certificate) -> Vec<CertificateDer<'static>> {
    [leaf.der(), pki.issuing.certificate().der()]
        .map(|der| CertificateDer::from(der.to_vec()))
        .to_vec()
}

fn private(key: &PrivateKey) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(key.pkcs8_der().to_vec().into())
}

#[test]
fn a_good_agent_gets_in_and_is_known() {
    for kind in [KeyKind::P256, KeyKind::Ed25519] {
        let ends = Ends::new(&[Role::Agent], None);
        let key = key(kind);
        let leaf = ends.pki.agent(&key);
        for _ in 0..2 {
            let shown = ends.shake(Some((chain(&ends.pki, &leaf), &key))).unwrap();
            let peer = ends.verifier().peer(&shown).unwrap();
            assert_eq!(peer.certificate(), &leaf);
        }
    }
}

#[test]
fn a_warm_cache_reads_nothing_again() {
    let ends = Ends::new(&[Role::Agent], None);
    let key = key(KeyKind::P256);
    let shown = ends
        .shake(Some((chain(&ends.pki, &ends.pki.agent(&key)), &key)))
        .unwrap();
    let first = ends.verifier().peer(&shown).unwrap();
    ends.shake(Some((shown.clone(), &key))).unwrap();
    let second = ends.verifier().peer(&shown).unwrap();
    assert!(Arc::ptr_eq(&first, &second), "the verdict was found anew");
    // The same leaf under other bytes is another chain.
    let mut other = shown.clone();
    other[1] = CertificateDer::from([shown[1].as_ref(), &[0]].concat());
    assert!(ends.verifier().peer(&other).is_none());
    assert!(ends.verifier().peer(&shown[..1]).is_none() && ends.verifier().peer(&[]).is_none());
}

#[test]
fn a_kept_verdict_still_expires() {
    let ends = Ends::new(&[Role::Agent], None);
    let key = key(KeyKind::P256);
    let identity = chain(&ends.pki, &ends.pki.agent(&key));
    ends.shake(Some((identity.clone(), &key))).unwrap();
    ends.clock.store(
        (ends.pki.now + HOUR + Duration::from_secs(1)).millis(),
        Ordering::SeqCst,
    );
    let refused = ends.shake(Some((identity.clone(), &key))).unwrap_err();
    assert_eq!(
        refused,
        Error::InvalidCertificate(CertificateError::Expired)
    );
    ends.clock
        .store((ends.pki.now - HOUR).millis(), Ordering::SeqCst);
    let refused = ends
        .verifier()
        .judge(&identity[0], &identity[1..])
        .unwrap_err();
    assert_eq!(refused, CertificateError::NotValidYet);
}

#[test]
fn extra_is_asked_every_time() {
    let revoked = Arc::new(Mutex::new(false));
    let asked = revoked.clone();
    let extra: Extra = Arc::new(move |_| {
        if *asked.lock().unwrap() {
            Err(CertificateError::Revoked)
        } else {
            Ok(())
        }
    });
    let ends = Ends::new(&[Role::Agent], Some(extra));
    let key = key(KeyKind::P256);
    let identity = chain(&ends.pki, &ends.pki.agent(&key));
    ends.shake(Some((identity.clone(), &key))).unwrap();
    *revoked.lock().unwrap() = true;
    let refused = ends.shake(Some((identity, &key))).unwrap_err();
    assert_eq!(
        refused,
        Error::InvalidCertificate(CertificateError::Revoked)
    );
}

#[test]
fn strangers_stay_out() {
    let ends = Ends::new(&[Role::Agent, Role::Person], None);
    let key = key(KeyKind::P256);
    ends.shake(Some((chain(&ends.pki, &ends.pki.person(&key)), &key)))
        .unwrap();
    let wrong_role = ends.shake(Some((chain(&ends.pki, &ends.pki.enforcer(&key)), &key)));
    assert_eq!(
        wrong_role.unwrap_err(),
        Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
    );
    let foreign = Pki::new();
    let unknown = ends.shake(Some((chain(&foreign, &foreign.agent(&key)), &key)));
    assert_eq!(
        unknown.unwrap_err(),
        Error::InvalidCertificate(CertificateError::UnknownIssuer)
    );
    assert_eq!(
        ends.shake(None).unwrap_err(),
        Error::NoCertificatesPresented
    );
}

#[test]
fn a_stolen_certificate_without_its_key_is_useless() {
    let ends = Ends::new(&[Role::Agent], None);
    let (owner, thief) = (key(KeyKind::P256), key(KeyKind::P256));
    let identity = chain(&ends.pki, &ends.pki.agent(&owner));
    ends.shake(Some((identity.clone(), &owner))).unwrap();
    // rustls refuses to load a key that does not fit, so the signature is checked directly.
    let leaf = &identity[0];
    let message = b"TLS 1.3, client CertificateVerify";
    let signed = |key: &PrivateKey| {
        let signature = key.sign(message).unwrap();
        let mut encoded = vec![0x04, 0x03];
        encoded.extend(u16::try_from(signature.len()).unwrap().to_be_bytes());
        encoded.extend(signature);
        encoded
    };
    let check = |encoded: Vec<u8>| {
        use rustls::internal::msgs::codec::{Codec, Reader};
        let signed = DigitallySignedStruct::read(&mut Reader::init(&encoded)).unwrap();
        ends.verifier()
            .verify_handshake(message, leaf, &signed)
            .map(|_| ())
    };
    assert_eq!(check(signed(&owner)), Ok(()));
    assert!(check(signed(&thief)).is_err());
}

#[test]
fn a_client_dials_roles_not_names() {
    let ends = Ends::new(&[Role::Agent], None);
    let key = key(KeyKind::P256);
    let identity = chain(&ends.pki, &ends.pki.agent(&key));
    let authority = PeerVerifier::new(
        ends.pki.anchor(),
        &[Role::Authority],
        Arc::new(Timestamp::now),
        None,
    );
    let ends = Ends {
        client: Arc::new(authority),
        ..ends
    };
    // The enforcer's certificate names localhost, and is not the authority's.
    let refused = ends.shake(Some((identity, &key))).unwrap_err();
    let failure = CertificateError::ApplicationVerificationFailure;
    assert_eq!(refused, Error::InvalidCertificate(failure));
}

/// Clients that are not ours judge enforcers by name and root, through webpki.
#[test]
fn a_stock_client_accepts_an_enforcer() {
    use rustls::client::WebPkiServerVerifier;
    let pki = Pki::new();
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from(pki.root.certificate().der()))
        .unwrap();
    let stock = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
    let stock = stock.build().unwrap();
    let leaf = pki.enforcer(&key(KeyKind::P256));
    let shown = chain(&pki, &leaf);
    let at = UnixTime::since_unix_epoch(Duration::from_secs(pki.now.secs().unsigned_abs()));
    let judge = |name: &'static str| {
        let name = ServerName::try_from(name).unwrap();
        stock
            .verify_server_cert(&shown[0], &shown[1..], &name, &[], at)
            .map(|_| ())
    };
    assert_eq!(judge("localhost"), Ok(()));
    assert_eq!(judge("127.0.0.1"), Ok(()));
    assert!(judge("example.com").is_err());
}

#[test]
fn the_cache_is_bounded() {
    let verdicts = Verdicts::new();
    let pki = Pki::new();
    let leaf = pki.agent(&key(KeyKind::P256));
    let chain = [leaf.der(), pki.issuing.certificate().der()];
    let peer = Arc::new(pki.anchor().verify_any(&chain, &[Role::Agent]).unwrap());
    for number in 0..40_000_u32 {
        let mut id = [0; 32];
        id[0] = number.to_le_bytes()[0];
        id[1..5].copy_from_slice(&number.to_be_bytes());
        verdicts.keep(id, id, peer.clone(), pki.now);
        assert!(verdicts.find(&id, &id).is_some());
    }
    let kept: usize = verdicts
        .0
        .iter()
        .map(|shard| shard.read().unwrap().len())
        .sum();
    assert_eq!(kept, SHARDS * MAX_PER_SHARD);
    let late = pki.now + HOUR * 24;
    verdicts.keep([7; 32], [7; 32], peer, late);
    assert_eq!(
        verdicts.0[7].read().unwrap().len(),
        1,
        "what expired goes first"
    );
}
