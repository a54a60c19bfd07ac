//! `[[assessor]]`: whose assessments count.

use std::path::{Path, PathBuf};

use agentca_identity::crypto::PublicKey;
use agentca_identity::pem;
use agentca_identity::spiffe::SpiffeId;
use agentca_policy::{Assessor, Assessors};

use super::super::errors::{ConfigError, Errors};
use super::{AssessorDecl, ReadFile, Tables};

/// Whose assessments count; keys are read from their files.
pub(super) fn check(
    tables: &Tables<AssessorDecl>,
    read: ReadFile<'_>,
    files: &mut Vec<PathBuf>,
    errors: &mut Errors,
) -> Assessors {
    let mut assessors = Assessors::new();
    for (decl, place) in tables.decls.iter().zip(&tables.places) {
        let mut wrong = |field: &str, message: String| {
            errors.push(ConfigError {
                file: place.file.as_deref().map(Path::to_owned),
                key: format!("assessor[{}].{field}", place.number),
                message,
            });
        };
        let assessor = match (&decl.public_key, &decl.person) {
            (Some(name), None) => {
                let path = decl.base.join(name);
                files.push(path.clone());
                read_key(&path, read)
                    .map(Assessor::Key)
                    .map_err(|error| ("public_key", format!("`{}`: {error}", path.display())))
            }
            (None, Some(person)) => match person.parse() {
                Ok(id @ SpiffeId::Person { .. }) => Ok(Assessor::Person(id)),
                _ => Err(("person", format!("`{person}` is not a person's SPIFFE id"))),
            },
            (Some(_), Some(_)) => Err((
                "person",
                "has no place beside `public_key`: keep one of them".to_owned(),
            )),
            (None, None) => Err((
                "public_key",
                "is missing: write it like `public_key = \"acme-labs.pem\"`, or `person`"
                    .to_owned(),
            )),
        };
        match assessor {
            Err((field, message)) => wrong(field, message),
            Ok(_) if assessors.contains_key(&decl.name) => {
                wrong("name", format!("`{}` appears twice", decl.name));
            }
            Ok(assessor) => {
                assessors.insert(decl.name.clone(), assessor);
            }
        }
    }
    assessors
}

fn read_key(path: &Path, read: ReadFile<'_>) -> Result<PublicKey, String> {
    let text = read(path).map_err(|error| error.to_string())?;
    let der = pem::decode("PUBLIC KEY", &text).map_err(|error| error.to_string())?;
    PublicKey::from_spki_der(&der).map_err(|error| error.to_string())
}
