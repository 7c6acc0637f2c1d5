//! relay-tokio
