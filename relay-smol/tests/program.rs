//! The program as an operator meets it. The cases are the same for every adapter.

#[path = "../../relay-tokio/tests/program/cases.rs"]
mod cases;

const PROGRAM: &str = env!("CARGO_BIN_EXE_relay-smol");
