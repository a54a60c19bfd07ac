//! How many files this process may have open, connections among them.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit as far as it may be, and clamps `connections`, on each of two listeners, to what fits.
/// A connection beyond the limit would otherwise fail inside, and the log's own files with it.
pub fn make_room(connections: usize) -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    let most = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::warn!(%error, "the limit on open files stays as it is");
            current
        }
    };
    let fitting = fitting(connections, most);
    if fitting < connections {
        tracing::warn!(
            wanted = connections,
            fitting,
            "`limits.max_connections` is more than the limit on open files allows"
        );
    }
    fitting
}

/// What fits under that many open files; no limit, and everything does.
fn fitting(connections: usize, most: Option<u64>) -> usize {
    let Some(most) = most.and_then(|most| usize::try_from(most).ok()) else {
        return connections;
    };
    let left = most.saturating_sub(OWN) / 2;
    connections.min(left.max(1))
}

/// What the authority has open besides connections: the log, the index, snapshots, the runtime.
const OWN: usize = 192;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_room_for_the_rest() {
        assert_eq!(fitting(4096, None), 4096);
        assert_eq!(fitting(4096, Some(1 << 20)), 4096);
        assert_eq!(fitting(4096, Some(1024)), 416);
        assert_eq!(fitting(4096, Some(10)), 1);
        assert_eq!(fitting(4, Some(1024)), 4);
    }

    #[test]
    fn the_limit_is_raised_as_far_as_it_may_be() {
        make_room(1);
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert_eq!(current, maximum);
    }
}
