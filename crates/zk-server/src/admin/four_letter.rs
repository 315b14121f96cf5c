//! placeholder until the real one lands
use bytes::BytesMut;
use crate::context::Context;
pub enum Detected { Incomplete, No, Word(String) }
pub fn detect(unread: &mut BytesMut) -> Detected {
    if unread.len() < 4 { return Detected::Incomplete; }
    match &unread[..4] { b"srvr" | b"stat" | b"ruok" | b"isro" | b"mntr" => Detected::Word(String::from_utf8_lossy(&unread[..4]).into_owned()), _ => Detected::No }
}
pub fn answer(context: &Context, word: &str) -> String {
    if word == "ruok" { return "imok".into(); }
    let s = context.node.status();
    format!("Zookeeper version: {}\nZxid: {}\nMode: standalone\nNode count: {}\n", crate::version::BANNER, s.zxid, s.node_count)
}
