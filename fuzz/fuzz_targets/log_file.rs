#![no_main]

#[path = "../../crates/zk-proto/tests/targets/mod.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::log_file(data));
