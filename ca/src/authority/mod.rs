//! The authority's decisions and what they are made on: records, state, sequencer, index.
//!
//! A change (`change/`) is judged by the [`sequencer`] against the [`state`], becomes records of the
//! log ([`event`]), and the records change the state ([`apply`]). The [`index`] is the state on disk.

pub mod apply;
pub mod change;
pub mod core;
pub mod event;
pub mod facts;
pub mod handle;
pub mod index;
pub mod refusal;
pub mod replay;
pub mod rows;
pub mod sequencer;
pub mod state;

#[cfg(test)]
mod tests;
