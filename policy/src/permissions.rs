//! What a tool may reach, and what an environment lets tools reach at most.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One of the four permissions: its values ordered, each with its name.
macro_rules! permission {
    ($(#[$meta:meta])* $kind:ident { $($(#[$doc:meta])* $value:ident = $name:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum $kind { #[default] $($(#[$doc])* $value),+ }

        impl $kind {
            /// Every value, from the least to the most.
            pub const ALL: &'static [Self] = &[$(Self::$value),+];

            /// The name in configuration and records.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$value => $name),+ }
            }
        }

        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

permission! {
    /// Whom a tool talks to.
    Network {
        /// Nobody.
        None = "none",
        /// The organisation's own systems.
        Internal = "internal",
        /// Anybody.
        External = "external",
    }
}

permission! {
    /// What a tool does with files.
    Filesystem {
        /// Nothing.
        None = "none",
        /// Reads them.
        Read = "read",
        /// Changes them.
        Write = "write",
    }
}

permission! {
    /// Whether a tool runs what it is given.
    CodeExecution {
        /// It does not.
        None = "none",
        /// Where it can do no harm.
        Sandboxed = "sandboxed",
        /// Anywhere.
        Unrestricted = "unrestricted",
    }
}

permission! {
    /// What a tool does with the organisation's data.
    DataAccess {
        /// Nothing.
        None = "none",
        /// Reads it.
        Read = "read",
        /// Changes it.
        ReadWrite = "read-write",
    }
}

/// What a tool may reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Permissions {
    /// Whom it talks to.
    pub network: Network,
    /// What it does with files.
    pub filesystem: Filesystem,
    /// Whether it runs what it is given.
    pub code_execution: CodeExecution,
    /// What it does with data.
    pub data_access: DataAccess,
}

impl Permissions {
    /// Nothing.
    pub const NONE: Self = Self {
        network: Network::None,
        filesystem: Filesystem::None,
        code_execution: CodeExecution::None,
        data_access: DataAccess::None,
    };
    /// Everything: what has to be assumed of what nobody declared.
    pub const MOST: Self = Self {
        network: Network::External,
        filesystem: Filesystem::Write,
        code_execution: CodeExecution::Unrestricted,
        data_access: DataAccess::ReadWrite,
    };

    /// Every permission that is more in `self` than in `other`.
    #[must_use]
    pub fn rises_over(&self, other: &Self) -> Vec<Rise> {
        // Every field is named, so that a new one cannot be overlooked.
        let Self {
            network,
            filesystem,
            code_execution,
            data_access,
        } = *self;
        let rise = |permission, more, from, to| {
            let rise = Rise {
                permission,
                from,
                to,
            };
            if more { Some(rise) } else { None }
        };
        let all = [
            rise(
                "network",
                network > other.network,
                other.network.as_str(),
                network.as_str(),
            ),
            rise(
                "filesystem",
                filesystem > other.filesystem,
                other.filesystem.as_str(),
                filesystem.as_str(),
            ),
            rise(
                "code_execution",
                code_execution > other.code_execution,
                other.code_execution.as_str(),
                code_execution.as_str(),
            ),
            rise(
                "data_access",
                data_access > other.data_access,
                other.data_access.as_str(),
                data_access.as_str(),
            ),
        ];
        all.into_iter().flatten().collect()
    }

    /// The more of both, each permission for itself.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            network: self.network.max(other.network),
            filesystem: self.filesystem.max(other.filesystem),
            code_execution: self.code_execution.max(other.code_execution),
            data_access: self.data_access.max(other.data_access),
        }
    }

    /// Why a person has to look at a tool that may this much; none when nobody has to.
    #[must_use]
    pub fn wants_review(&self) -> Option<&'static str> {
        if self.code_execution != CodeExecution::None {
            Some("it runs code")
        } else if self.network == Network::External {
            Some("it talks to anybody on the network")
        } else if self.filesystem == Filesystem::Write {
            Some("it writes files")
        } else {
            None
        }
    }
}

/// One permission that is more than it was, or than it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rise {
    /// Its key.
    pub permission: &'static str,
    /// The lesser value.
    pub from: &'static str,
    /// The greater value.
    pub to: &'static str,
}

impl fmt::Display for Rise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            permission,
            from,
            to,
        } = self;
        write!(f, "{permission} {to} (over {from})")
    }
}

/// Permissions as they are written: what is absent was not declared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PermissionsDecl {
    /// Whom a tool talks to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// What it does with files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filesystem: Option<Filesystem>,
    /// Whether it runs what it is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code_execution: Option<CodeExecution>,
    /// What it does with data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_access: Option<DataAccess>,
}

impl PermissionsDecl {
    /// Each permission as declared, else as in `absent`.
    #[must_use]
    pub fn or(self, absent: Permissions) -> Permissions {
        Permissions {
            network: self.network.unwrap_or(absent.network),
            filesystem: self.filesystem.unwrap_or(absent.filesystem),
            code_execution: self.code_execution.unwrap_or(absent.code_execution),
            data_access: self.data_access.unwrap_or(absent.data_access),
        }
    }

    /// Whether nothing is declared.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl From<Permissions> for PermissionsDecl {
    fn from(permissions: Permissions) -> Self {
        Self {
            network: Some(permissions.network),
            filesystem: Some(permissions.filesystem),
            code_execution: Some(permissions.code_execution),
            data_access: Some(permissions.data_access),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rise_is_told_for_each_permission_that_is_more() {
        let all: Vec<_> = Permissions::MOST
            .rises_over(&Permissions::NONE)
            .iter()
            .map(|rise| rise.permission)
            .collect();
        let keys = ["network", "filesystem", "code_execution", "data_access"];
        assert_eq!(all, keys);
        assert!(Permissions::MOST.rises_over(&Permissions::MOST).is_empty());
        assert!(Permissions::NONE.rises_over(&Permissions::MOST).is_empty());
        let internal = Permissions {
            network: Network::Internal,
            ..Permissions::NONE
        };
        let [rise] = Permissions::MOST
            .rises_over(&Permissions {
                network: Network::Internal,
                ..Permissions::MOST
            })
            .try_into()
            .unwrap();
        assert_eq!(rise.to_string(), "network external (over internal)");
        assert_eq!(internal.max(Permissions::MOST), Permissions::MOST);
    }

    #[test]
    fn what_reaches_outside_writes_files_or_runs_code_wants_a_person() {
        let with = |text: &str| {
            let decl: PermissionsDecl = toml::from_str(text).unwrap();
            decl.or(Permissions::NONE).wants_review().is_some()
        };
        for calm in [
            "",
            "network = \"internal\"",
            "filesystem = \"read\"",
            "data_access = \"read-write\"",
        ] {
            assert!(!with(calm), "{calm}");
        }
        for bold in [
            "network = \"external\"",
            "filesystem = \"write\"",
            "code_execution = \"sandboxed\"",
            "code_execution = \"unrestricted\"",
        ] {
            assert!(with(bold), "{bold}");
        }
    }

    #[test]
    fn names_in_files_are_those_that_are_shown() {
        for access in DataAccess::ALL {
            let text = format!("data_access = \"{access}\"");
            let decl: PermissionsDecl = toml::from_str(&text).unwrap();
            assert_eq!(decl.data_access, Some(*access));
            assert_eq!(toml::to_string(&decl).unwrap().trim(), text);
        }
        toml::from_str::<PermissionsDecl>("netwrok = \"none\"").unwrap_err();
    }
}
