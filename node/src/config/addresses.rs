//! Whether the addresses of a node go with its other settings. Never: listening, resolving a name.
//!
//! Invariant: what is refused depends on the settings alone, so `--check-config` and a start say the same of them.

use std::net::SocketAddr;

use super::Config;

/// What is wrong, with the key that is to be changed.
pub(super) fn faults(config: &Config) -> Vec<(&'static str, String)> {
    let mut faults = Vec::new();
    for (key, address) in [("listen", &config.listen), ("peer_listen", &config.peer_listen)] {
        if !config.insecure && fixed(address).is_some_and(|address| !address.ip().is_loopback()) {
            let why = "is not loopback and there is no TLS: use a loopback address, or insecure (--insecure) on a closed \
                       network";
            faults.push((key, format!("{key} = {address:?} {why}")));
        }
    }
    for (listened, key, flag, given, told) in [
        (
            "listen",
            "advertise",
            "--advertise",
            config.advertise.is_some(),
            config.client_address(),
        ),
        (
            "peer_listen",
            "advertise_peer",
            "--advertise-peer",
            config.advertise_peer.is_some(),
            config.peer_address(),
        ),
    ] {
        if fixed(told).is_some_and(|address| address.ip().is_unspecified()) {
            let from = if given { key } else { listened };
            let why = format!("cannot be told to others: name an address that they reach with {key} ({flag})");
            faults.push((from, format!("{from} = {told:?} {why}")));
        }
    }
    faults
}

/// The address, where it is no name.
fn fixed(address: &str) -> Option<SocketAddr> {
    address.parse().ok()
}
