//! stub
/// id
pub struct PeerId;
impl PeerId {
    /// new
    pub fn new(text: &str) -> Option<Self> {
        (!text.is_empty() && text.len() <= 128 && !text.chars().any(char::is_control)).then_some(Self)
    }
}
