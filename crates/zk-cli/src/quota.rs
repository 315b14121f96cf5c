use std::collections::BTreeMap;
use std::fmt;

/// Soft limit on the number of znodes, and their number in a quota's stat.
pub(crate) const COUNT: &str = "count";
/// Soft limit on bytes of data, and their number in a quota's stat.
pub(crate) const BYTES: &str = "bytes";
/// Hard limit on the number of znodes.
pub(crate) const COUNT_HARD: &str = "countHardLimit";
/// Hard limit on bytes of data.
pub(crate) const BYTES_HARD: &str = "byteHardLimit";

/// A quota, or what is counted against it (`StatsTrack`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Quota(BTreeMap<String, i64>);

impl Quota {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut values = BTreeMap::new();
        for pair in text.split([',', ';']).filter(|pair| !pair.is_empty()) {
            let mut parts = pair.split('=');
            let (key, value) = (parts.next()?, parts.next().unwrap_or_default());
            values.insert(key.to_owned(), if value.is_empty() { -1 } else { value.parse().ok()? });
        }
        Some(Self(values))
    }

    /// −1 means no limit.
    pub(crate) fn get(&self, key: &str) -> i64 {
        self.0.get(key).copied().unwrap_or(-1)
    }

    pub(crate) fn set(&mut self, key: &str, value: i64) {
        self.0.insert(key.to_owned(), value);
    }
}

/// As it is stored. The second `=` makes readers before 3.7 stop there.
impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "count={},bytes={}", self.get(COUNT), self.get(BYTES))?;
        for (at, (key, value)) in
            self.0.iter().filter(|(key, _)| *key != COUNT && *key != BYTES).enumerate()
        {
            write!(f, "{};{key}={value}", if at == 0 { "=" } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_apache_writes_is_read_and_written_back() {
        for text in ["count=3,bytes=-1=;byteHardLimit=-1;countHardLimit=7", "count=4,bytes=9"] {
            assert_eq!(Quota::parse(text).unwrap().to_string(), text);
        }
        let quota = Quota::parse("count=3,bytes=-1=;byteHardLimit=5").unwrap();
        assert_eq!((quota.get(COUNT), quota.get(BYTES_HARD), quota.get(COUNT_HARD)), (3, 5, -1));
        assert!(Quota::parse("count=x").is_none());
    }
}
