//! The store, through its public face: what is durable comes back, whatever happens in between.

mod backup;
mod crash;
mod damage;
mod failure;
mod flipped;
mod harness;
mod kill;
mod queues;
mod reopen;
