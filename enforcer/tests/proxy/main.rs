//! The data plane in one process: a real client, a real server, a real log, a registry that the test
//! feeds.

#[cfg(test)]
mod answers;
#[cfg(test)]
mod client;
#[cfg(test)]
mod credentials;
#[cfg(test)]
mod disk;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod floods;
#[cfg(test)]
mod framing;
#[cfg(test)]
mod life;
#[cfg(test)]
mod links;
#[cfg(test)]
mod ops;
#[cfg(test)]
mod pki;
#[cfg(test)]
mod programs;
#[cfg(test)]
mod raw;
#[cfg(test)]
mod reloads;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod tls_upstream;
#[cfg(test)]
mod uploads;
#[cfg(test)]
mod upstream;
#[cfg(test)]
mod verdicts;
#[cfg(test)]
mod windows;
