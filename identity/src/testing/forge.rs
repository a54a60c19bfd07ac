//! Takes a good certificate apart, changes it, and signs it again as a bad CA would.

use crate::certificate::{Certificate, assemble};
use crate::crypto::PrivateKey;
use crate::der::{Reader, Writer, tag};

pub(crate) struct Forge {
    /// version, serialNumber, signature, issuer, validity, subject, subjectPublicKeyInfo.
    pub(crate) fields: Vec<Vec<u8>>,
    /// The whole DER of each extension.
    pub(crate) extensions: Vec<Vec<u8>>,
}

impl Forge {
    pub(crate) fn from(certificate: &Certificate) -> Self {
        let mut reader = Reader::new(Reader::only(tag::SEQUENCE, certificate.tbs()).unwrap());
        let tags = [
            tag::context_constructed(0),
            tag::INTEGER,
            tag::SEQUENCE,
            tag::SEQUENCE,
            tag::SEQUENCE,
            tag::SEQUENCE,
            tag::SEQUENCE,
        ];
        let fields = tags
            .into_iter()
            .map(|tag| reader.expect_whole(tag).unwrap().0.to_vec())
            .collect();
        let list = reader.expect(tag::context_constructed(3)).unwrap();
        let mut list = Reader::new(Reader::only(tag::SEQUENCE, list).unwrap());
        let mut extensions = Vec::new();
        while !list.is_empty() {
            extensions.push(list.expect_whole(tag::SEQUENCE).unwrap().0.to_vec());
        }
        Self { fields, extensions }
    }

    /// Position of the extension with this OID.
    pub(crate) fn position(&self, oid: &[u8]) -> usize {
        let is = |extension: &Vec<u8>| {
            let mut reader = Reader::new(Reader::only(tag::SEQUENCE, extension).unwrap());
            reader.expect(tag::OID).unwrap() == oid
        };
        self.extensions.iter().position(is).unwrap()
    }

    pub(crate) fn without(mut self, oid: &[u8]) -> Self {
        self.extensions.remove(self.position(oid));
        self
    }

    pub(crate) fn twice(mut self, oid: &[u8]) -> Self {
        let position = self.position(oid);
        self.extensions
            .insert(position, self.extensions[position].clone());
        self
    }

    /// The same extension with another value; `critical` writes the flag as it is given.
    pub(crate) fn replace(mut self, oid: &[u8], critical: Option<u8>, value: &[u8]) -> Self {
        let position = self.position(oid);
        self.extensions[position] = extension(oid, critical, value);
        self
    }

    pub(crate) fn with(mut self, oid: &[u8], critical: Option<u8>, value: &[u8]) -> Self {
        self.extensions.push(extension(oid, critical, value));
        self
    }

    pub(crate) fn tbs(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.sequence(|w| {
            self.fields.iter().for_each(|field| w.raw(field));
            w.nested(tag::context_constructed(3), |w| {
                w.sequence(|w| {
                    self.extensions
                        .iter()
                        .for_each(|extension| w.raw(extension))
                });
            });
        });
        writer.finish()
    }

    pub(crate) fn sign(&self, key: &PrivateKey) -> Vec<u8> {
        let tbs = self.tbs();
        assemble(&tbs, key.kind(), &key.sign(&tbs).unwrap())
    }
}

fn extension(oid: &[u8], critical: Option<u8>, value: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.sequence(|w| {
        w.oid(oid);
        if let Some(critical) = critical {
            w.tlv(tag::BOOLEAN, &[critical]);
        }
        w.tlv(tag::OCTET_STRING, value);
    });
    writer.finish()
}
