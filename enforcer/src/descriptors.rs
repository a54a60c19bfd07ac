//! File descriptors: as many as the system lets this process have, and no more connections than fit.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard one: the soft one is low for the sake of programs that use
/// select(2).
pub(crate) fn raise() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, ?current, "the limit on open files cannot be raised");
    }
}

/// The client connections that this process has descriptors for.
pub(crate) fn connections_that_fit() -> usize {
    fit(getrlimit(Resource::Nofile).current)
}

/// Every client connection may have one to an upstream.
fn fit(descriptors: Option<u64>) -> usize {
    let Some(descriptors) = descriptors else {
        return usize::MAX;
    };
    let connections = descriptors.saturating_sub(RESERVE) / 2;
    usize::try_from(connections).unwrap_or(usize::MAX).max(1)
}

/// For the log, the feed, listeners and runtimes.
const RESERVE: u64 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_what_it_may_have() {
        raise();
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert_eq!(current, maximum);
    }

    #[test]
    fn connections_leave_room_for_everything_else() {
        assert_eq!(fit(Some(1024)), 384);
        assert_eq!(fit(Some(10)), 1);
        assert_eq!(fit(None), usize::MAX);
    }
}
