//! Hostile Clients against the real program: raw bytes that make the broker work hard, while an ordinary pair of
//! Clients and `/live` are watched, and SIGTERM at the end.
//!
//! One file for each kind of attack. Nothing here measures time to pass or fail: an attack fails the broker if the
//! ordinary Clients stand still until it is over. The broker has one worker thread, so that whatever does not give
//! way is seen at once. Sizes are small by default; `make hostile` sets `HOSTILE=full` and prints how long the others
//! waited.

#![allow(missing_docs, reason = "tests are documented where their name does not say everything")]

mod authentication;
mod broker;
mod floods;
mod memory;
mod openings;
mod plans;
mod readers;
mod subscriptions;
mod watch;
mod wire;

/// `full` with `HOSTILE=full`, else `small`.
fn size(small: usize, full: usize) -> usize {
    if is_full() { full } else { small }
}

fn is_full() -> bool {
    std::env::var_os("HOSTILE").is_some_and(|value| value == "full")
}
