//! What is remembered of sessions at the shared endpoint: the session at each server that one stands for, and at
//! which server its calls run.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OnceCell;

use crate::jsonrpc::meant;

/// Sessions at servers that were begun for sessions at the shared endpoint, and calls in them.
#[derive(Debug, Default)]
pub(crate) struct SharedSessions {
    /// By agent: none can make another's be forgotten.
    agents: Mutex<HashMap<Box<str>, Agent>>,
}

/// One agent's.
#[derive(Debug, Default)]
struct Agent {
    /// By shared session and upstream.
    sessions: HashMap<(String, Arc<str>), Slot>,
    oldest: VecDeque<(String, Arc<str>)>,
    /// Calls that may still run, the newest last.
    running: VecDeque<(CallKey, Arc<str>)>,
}

/// Begun once, whoever comes first; nothing in it where the server gives no id.
pub(super) type Slot = Arc<OnceCell<Option<String>>>;

/// A call of one agent, by its shared session and its id. Only an agent's own are held against each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CallKey(u64);

impl CallKey {
    pub(super) fn of(shared: &str, id: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        (shared, meant(id)).hash(&mut hasher);
        Self(hasher.finish())
    }
}

impl SharedSessions {
    /// Where a session is kept. What is forgotten is begun again.
    pub(super) fn slot(&self, agent: &str, shared: &str, upstream: &Arc<str>) -> Slot {
        let mut agents = self.agents();
        let agent = entry(&mut agents, agent);
        let key = (shared.to_owned(), Arc::clone(upstream));
        if let Some(slot) = agent.sessions.get(&key) {
            return Arc::clone(slot);
        }
        while agent.sessions.len() >= KEPT {
            let Some(oldest) = agent.oldest.pop_front() else {
                break;
            };
            agent.sessions.remove(&oldest);
        }
        let slot = Slot::default();
        agent.sessions.insert(key.clone(), Arc::clone(&slot));
        agent.oldest.push_back(key);
        slot
    }

    /// What a server gave as a session's id, once it is begun.
    pub(super) fn begun(
        &self,
        agent: &str,
        shared: &str,
        upstream: &Arc<str>,
    ) -> Option<Option<String>> {
        let agents = self.agents();
        let key = (shared.to_owned(), Arc::clone(upstream));
        agents.get(agent)?.sessions.get(&key)?.get().cloned()
    }

    /// A call goes to a server.
    pub(super) fn begins(&self, agent: &str, call: CallKey, upstream: &Arc<str>) {
        let mut agents = self.agents();
        let running = &mut entry(&mut agents, agent).running;
        if running.len() >= KEPT {
            running.pop_front();
        }
        running.push_back((call, Arc::clone(upstream)));
    }

    /// There is nothing left of a call to cancel.
    pub(super) fn ends(&self, agent: &str, call: CallKey) {
        if let Some(agent) = self.agents().get_mut(agent) {
            agent.running.retain(|(running, _)| *running != call);
        }
    }

    /// The server to which a call went, if it may still run.
    pub(super) fn place_of(&self, agent: &str, call: CallKey) -> Option<Arc<str>> {
        let agents = self.agents();
        let mut running = agents.get(agent)?.running.iter().rev();
        let (_, upstream) = running.find(|(running, _)| *running == call)?;
        Some(Arc::clone(upstream))
    }

    fn agents(&self) -> MutexGuard<'_, HashMap<Box<str>, Agent>> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn entry<'a>(agents: &'a mut HashMap<Box<str>, Agent>, agent: &str) -> &'a mut Agent {
    if !agents.contains_key(agent) && agents.len() >= AGENTS {
        // So many that whoever it is will hardly notice.
        let other = agents.keys().next().cloned();
        other.and_then(|other| agents.remove(&other));
    }
    agents.entry(agent.into()).or_default()
}

/// Sessions at servers remembered for one agent, and calls.
const KEPT: usize = 256;
/// Agents of whom anything is remembered.
const AGENTS: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_agent_makes_none_forget_but_its_own() {
        let (sessions, upstream) = (SharedSessions::default(), Arc::from("bank"));
        let slot = |agent: &str, shared: &str| sessions.slot(agent, shared, &upstream);
        let begin = async || Ok::<_, ()>(Some("begun".to_owned()));
        slot("a", "s").get_or_try_init(begin).await.unwrap();
        let call = CallKey::of("s", "1");
        sessions.begins("a", call, &upstream);
        sessions.begins("b", call, &upstream);
        for number in 0..KEPT * 2 {
            let shared = number.to_string();
            slot("b", &shared);
            sessions.begins("b", CallKey::of(&shared, "1"), &upstream);
        }
        assert!(slot("a", "s").get().is_some());
        assert!(slot("b", "s").get().is_none(), "another's session");
        assert_eq!(sessions.place_of("a", call), Some(Arc::clone(&upstream)));
        assert_eq!(sessions.place_of("b", call), None, "the oldest");
        let agents = sessions.agents();
        assert_eq!(agents["b"].sessions.len(), KEPT);
        assert_eq!(agents["b"].oldest.len(), KEPT);
        assert_eq!(agents["b"].running.len(), KEPT);
    }

    #[test]
    fn a_call_is_found_while_it_runs_in_its_session() {
        let sessions = SharedSessions::default();
        let (bank, vault): (Arc<str>, Arc<str>) = (Arc::from("bank"), Arc::from("vault"));
        let (one, text) = (CallKey::of("s", "1"), CallKey::of("s", r#""1""#));
        sessions.begins("a", one, &bank);
        sessions.begins("a", text, &vault);
        assert_eq!(sessions.place_of("a", one), Some(bank));
        let escaped = CallKey::of("s", r#""\u0031""#);
        assert_eq!(sessions.place_of("a", escaped), Some(vault));
        assert_eq!(sessions.place_of("b", one), None, "another agent's");
        let elsewhere = CallKey::of("t", "1");
        assert_eq!(sessions.place_of("a", elsewhere), None, "another session's");
        sessions.ends("a", one);
        assert_eq!(sessions.place_of("a", one), None, "it is over");
        assert!(sessions.place_of("a", text).is_some());
    }

    #[tokio::test]
    async fn two_first_calls_begin_one_session() {
        let (sessions, upstream) = (SharedSessions::default(), Arc::from("bank"));
        assert_eq!(sessions.begun("a", "s", &upstream), None);
        let (one, other) = (
            sessions.slot("a", "s", &upstream),
            sessions.slot("a", "s", &upstream),
        );
        assert_eq!(sessions.begun("a", "s", &upstream), None);
        let begin = async || {
            tokio::task::yield_now().await;
            Ok::<_, ()>(Some("one".to_owned()))
        };
        let never = async || -> Result<Option<String>, ()> { panic!("begun twice") };
        let (first, second) =
            tokio::join!(one.get_or_try_init(begin), other.get_or_try_init(never));
        assert_eq!(first, second);
        let begun = sessions.begun("a", "s", &upstream);
        assert_eq!(begun, Some(Some("one".to_owned())));
    }
}
