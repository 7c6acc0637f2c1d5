//! stub
/// Stats
#[derive(Debug)]
pub struct Stats {}
