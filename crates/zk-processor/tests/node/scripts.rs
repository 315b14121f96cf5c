//! Golden scripts: what every operation answers, and in which order things come.

use zk_testkit::golden;

use crate::script;

#[test]
fn scripts() {
    golden::check_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata"), script::run);
}
