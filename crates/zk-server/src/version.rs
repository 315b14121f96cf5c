//! What the server says it is.

/// The version banner: in `srvr`, `stat`, `mntr`, `envi` and in `paddock --version`.
///
/// Monitors take the version that follows "Zookeeper version: " up to the dash for ZooKeeper's, and
/// go-zk refuses any date but `MM/dd/yyyy HH:mm TZ`. The date is the release's and not the build's, so
/// that a build can be repeated byte by byte.
pub const BANNER: &str =
    concat!("3.9.5-paddock.", env!("CARGO_PKG_VERSION"), ", built on 11/22/2026 00:00 UTC");

#[cfg(test)]
mod tests {
    use super::BANNER;

    /// `^([A-Za-z0-9\.\-]+), built on (\d\d/\d\d/\d\d\d\d \d\d:\d\d [A-Za-z0-9:\+\-]+)`, go-zk's.
    #[test]
    fn go_zk_accepts_the_banner() {
        let (version, date) = BANNER.split_once(", built on ").unwrap();
        assert!(version.starts_with("3.9.5-"));
        assert!(
            version.chars().all(|c| c.is_ascii_alphanumeric() || ".-".contains(c)),
            "{version}"
        );
        let shape: String =
            date.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(shape, "00/00/0000 00:00 UTC");
    }
}
