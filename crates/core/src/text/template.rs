//! stub
use crate::Result; use super::Message;
#[derive(Clone, Debug, Default)] pub struct Specials { pub bos: Option<String>, pub eos: Option<String>, pub pad: Option<String>, pub unk: Option<String> }
#[derive(Debug)] pub struct ChatTemplate;
impl ChatTemplate { pub fn parse(_: &str, _: &str, _: Specials) -> Result<Self> { Ok(Self) } pub fn render(&self, _: &[Message]) -> Result<String> { Ok(String::new()) } }
