//! What can change while the enforcer runs, swapped whole.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config::Config;
use crate::credentials::Credentials;

/// The configuration and the credentials in force.
#[derive(Debug)]
pub struct Settings {
    current: ArcSwap<Setting>,
}

/// One configuration with the credentials that were checked against it.
#[derive(Debug)]
pub struct Setting {
    /// The configuration.
    pub config: Arc<Config>,
    /// The credentials.
    pub credentials: Arc<Credentials>,
}

impl Settings {
    /// Begins with a first setting.
    #[must_use]
    pub fn new(setting: Setting) -> Arc<Self> {
        Arc::new(Self {
            current: ArcSwap::from_pointee(setting),
        })
    }

    /// Both at once.
    #[must_use]
    pub fn setting(&self) -> Arc<Setting> {
        self.current.load_full()
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.current.load().config)
    }

    /// The credentials in force.
    #[must_use]
    pub fn credentials(&self) -> Arc<Credentials> {
        Arc::clone(&self.current.load().credentials)
    }

    /// Puts another setting into force.
    pub fn replace(&self, setting: Setting) {
        self.current.store(Arc::new(setting));
    }
}
