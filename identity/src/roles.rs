//! What people may do at the authority.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

use crate::text::serde_as_text;

/// One thing a person may be trusted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PersonRole {
    /// Manages people, enforcers and keys, and may do all but read records.
    Admin,
    /// Reads records.
    Auditor,
    /// Registers agents, changes grants, issues certificates.
    Issuer,
    /// Revokes, restricts, reinstates.
    Responder,
}

impl PersonRole {
    /// Every role, in the order in which they are written.
    pub const ALL: [Self; 4] = [Self::Admin, Self::Auditor, Self::Issuer, Self::Responder];

    /// The name in certificates and commands.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Auditor => "auditor",
            Self::Issuer => "issuer",
            Self::Responder => "responder",
        }
    }

    const fn bit(self) -> u8 {
        match self {
            Self::Admin => 1,
            Self::Auditor => 2,
            Self::Issuer => 4,
            Self::Responder => 8,
        }
    }
}

impl fmt::Display for PersonRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for PersonRole {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or(RoleError::Unknown)
    }
}

serde_as_text!(PersonRole);

/// A set of roles; may be empty.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Roles(u8);

impl Roles {
    /// Most roles in a set.
    pub const MAX: usize = PersonRole::ALL.len();

    /// Every role: what the first person of an authority gets.
    pub fn all() -> Self {
        PersonRole::ALL.into_iter().collect()
    }

    /// Whether `role` itself is in the set.
    pub const fn contains(self, role: PersonRole) -> bool {
        self.0 & role.bit() != 0
    }

    /// Whether the set allows what `role` allows: an admin may everything but reading records,
    /// which needs [`PersonRole::Auditor`].
    pub const fn permits(self, role: PersonRole) -> bool {
        self.contains(role)
            || (!matches!(role, PersonRole::Auditor) && self.contains(PersonRole::Admin))
    }

    /// The roles of the set in the order in which they are written.
    pub fn iter(self) -> impl Iterator<Item = PersonRole> {
        PersonRole::ALL
            .into_iter()
            .filter(move |role| self.contains(*role))
    }

    /// Whether the set has no role.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Reads names in written order without repetition, as certificates hold them.
    pub fn from_canonical<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, RoleError> {
        let mut roles = Self::default();
        let mut last = None;
        for name in names {
            let role: PersonRole = name.parse()?;
            if last.is_some_and(|last| last >= role) {
                return Err(RoleError::Order);
            }
            roles.0 |= role.bit();
            last = Some(role);
        }
        Ok(roles)
    }
}

impl FromIterator<PersonRole> for Roles {
    fn from_iter<I: IntoIterator<Item = PersonRole>>(roles: I) -> Self {
        Self(roles.into_iter().fold(0, |bits, role| bits | role.bit()))
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, role) in self.iter().enumerate() {
            if position > 0 {
                f.write_str(",")?;
            }
            f.write_str(role.as_str())?;
        }
        Ok(())
    }
}

impl Serialize for Roles {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // As a slice: compact formats want to know the length first.
        let roles: Vec<PersonRole> = self.iter().collect();
        roles.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Roles {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        Self::from_canonical(names.iter().map(String::as_str)).map_err(de::Error::custom)
    }
}

/// A text is not a role, or a list not a set of roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RoleError {
    /// No role has this name.
    #[error("not a role, use admin, auditor, issuer or responder")]
    Unknown,
    /// Roles repeat or are not sorted.
    #[error("roles must be sorted and distinct")]
    Order,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_may_everything_but_read_records() {
        let admin: Roles = [PersonRole::Admin].into_iter().collect();
        assert!(admin.permits(PersonRole::Admin));
        assert!(admin.permits(PersonRole::Issuer));
        assert!(admin.permits(PersonRole::Responder));
        assert!(!admin.permits(PersonRole::Auditor));
        assert!(
            PersonRole::ALL
                .into_iter()
                .all(|role| Roles::all().permits(role))
        );
        let issuer: Roles = [PersonRole::Issuer].into_iter().collect();
        assert!(!issuer.permits(PersonRole::Responder) && !issuer.permits(PersonRole::Admin));
        assert!(
            PersonRole::ALL
                .into_iter()
                .all(|role| !Roles::default().permits(role))
        );
    }

    #[test]
    fn canonical_form_only() {
        assert_eq!(
            Roles::from_canonical(["admin", "issuer"])
                .unwrap()
                .to_string(),
            "admin,issuer"
        );
        assert_eq!(
            Roles::from_canonical(["issuer", "admin"]),
            Err(RoleError::Order)
        );
        assert_eq!(
            Roles::from_canonical(["admin", "admin"]),
            Err(RoleError::Order)
        );
        assert_eq!(Roles::from_canonical(["root"]), Err(RoleError::Unknown));
        assert!(PersonRole::ALL.is_sorted_by_key(|role| role.as_str()));
    }
}
