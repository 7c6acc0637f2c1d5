//! relay-smol
