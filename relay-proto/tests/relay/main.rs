//! The machine, event by event: every test says which actions follow, that there are no more, and where it
//! matters the exact next deadline.

mod admission;
mod contract;
mod drain;
mod keepalive;
mod shards;
mod waiting;
mod world;
