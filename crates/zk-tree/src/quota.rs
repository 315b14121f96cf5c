//! Quotas: limits on subtrees, and the counts of what is there (facts, section 1.16).

use std::collections::BTreeMap;
use std::fmt;

use zk_proto::path;

use crate::tree::DataTree;

const QUOTA_ROOT: &str = "/zookeeper/quota";
const LIMITS: &str = "zookeeper_limits";
const STATS: &str = "zookeeper_stats";

/// The text in limit and usage nodes (`StatsTrack`). −1 is no limit, or unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatsTrack {
    /// Znodes.
    pub count: i64,
    /// Bytes of data.
    pub bytes: i64,
    /// All other keys, the hard limits among them.
    pub extra: BTreeMap<String, i64>,
}

impl Default for StatsTrack {
    fn default() -> Self {
        Self { count: -1, bytes: -1, extra: BTreeMap::new() }
    }
}

impl StatsTrack {
    /// Reads what any client may have written: what is no number counts as −1. (Upstream throws.)
    #[must_use]
    pub fn parse(data: &[u8]) -> Self {
        let text = String::from_utf8_lossy(data);
        let mut track = Self::default();
        for pair in text.split([',', ';']).filter(|pair| !pair.is_empty()) {
            let mut parts = pair.split('=');
            let key = parts.next().unwrap_or_default();
            let value = parts.next().and_then(|value| value.parse().ok()).unwrap_or(-1);
            match key {
                "count" => track.count = value,
                "bytes" => track.bytes = value,
                other => {
                    track.extra.insert(other.to_owned(), value);
                }
            }
        }
        track
    }

    /// The enforced limit on znodes.
    #[must_use]
    pub fn count_hard_limit(&self) -> i64 {
        self.extra.get("countHardLimit").copied().unwrap_or(-1)
    }

    /// The enforced limit on bytes.
    #[must_use]
    pub fn byte_hard_limit(&self) -> i64 {
        self.extra.get("byteHardLimit").copied().unwrap_or(-1)
    }
}

impl fmt::Display for StatsTrack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "count={},bytes={}", self.count, self.bytes)?;
        if !self.extra.is_empty() {
            // Parsers before 3.5 stop at the second `=` and do not see the rest.
            f.write_str("=")?;
        }
        self.extra.iter().try_for_each(|(key, value)| write!(f, ";{key}={value}"))
    }
}

/// A quota, its limits and what is used of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaStatus {
    /// The root of the subtree.
    pub quota_path: String,
    /// What is allowed.
    pub limits: StatsTrack,
    /// What is there.
    pub usage: StatsTrack,
}

/// The path that a limit or usage node is about. The root has no quota: upstream fails on one.
fn subject<'a>(node: &'a str, name: &str) -> Option<&'a str> {
    let subject = node.strip_prefix(QUOTA_ROOT)?.strip_suffix(name)?.strip_suffix('/')?;
    (!subject.is_empty()).then_some(subject)
}

impl DataTree {
    /// The quota that `path` counts towards: the one deepest down among its ancestors and itself.
    #[must_use]
    pub fn quota_for(&self, path: &str) -> Option<QuotaStatus> {
        self.quota_path_for(path).map(|quota_path| self.quota_status(quota_path))
    }

    /// All quotas, ordered by path.
    pub fn quotas(&self) -> impl Iterator<Item = QuotaStatus> {
        self.quotas.iter().map(|quota_path| self.quota_status(quota_path))
    }

    fn quota_status(&self, quota_path: &str) -> QuotaStatus {
        let track = |name| {
            let node = self.find(&format!("{QUOTA_ROOT}{quota_path}/{name}"));
            StatsTrack::parse(node.and_then(|node| node.data()).unwrap_or_default())
        };
        QuotaStatus {
            quota_path: quota_path.to_owned(),
            limits: track(LIMITS),
            usage: track(STATS),
        }
    }

    fn quota_path_for<'a>(&self, path: &'a str) -> Option<&'a str> {
        if self.quotas.is_empty() {
            return None;
        }
        let ancestors = std::iter::successors(Some(path), |path| Some(path::parent(path)));
        ancestors.take_while(|path| path.len() > 1).find(|path| self.quotas.contains(*path))
    }

    /// Adds to the usage of the quota that `path` counts towards.
    pub(crate) fn add_usage(&mut self, path: &str, bytes: i64, count: i64) {
        let Some(quota_path) = self.quota_path_for(path) else { return };
        let stats_path = format!("{QUOTA_ROOT}{quota_path}/{STATS}");
        let Some(id) = self.id(&stats_path) else { return };
        let mut usage = StatsTrack::parse(self.nodes[id].data.as_deref().unwrap_or_default());
        usage.count = usage.count.wrapping_add(count);
        usage.bytes = usage.bytes.wrapping_add(bytes);
        self.write_usage(id, &stats_path, &usage);
    }

    fn write_usage(&mut self, id: u32, stats_path: &str, usage: &StatsTrack) {
        self.replace_data(id, stats_path, Some(usage.to_string().as_bytes()), |_| {});
    }

    pub(crate) fn quota_after_create(&mut self, path: &str) {
        if let Some(subject) = subject(path, LIMITS) {
            self.quotas.insert(subject.into());
        } else if let Some(subject) = subject(path, STATS) {
            self.count_usage(subject);
        }
    }

    pub(crate) fn quota_after_delete(&mut self, path: &str) {
        if let Some(subject) = subject(path, LIMITS) {
            self.quotas.remove(subject);
        }
    }

    /// Counts a subtree and writes its usage node, if there is one and it says otherwise.
    fn count_usage(&mut self, quota_path: &str) {
        let stats_path = format!("{QUOTA_ROOT}{quota_path}/{STATS}");
        let Some(stats) = self.id(&stats_path) else { return };
        let ids = self.id(quota_path).map_or_else(Vec::new, |id| self.subtree(id));
        let bytes: usize = ids.iter().map(|&id| self.nodes[id].data_len()).sum();
        let usage =
            StatsTrack { count: ids.len() as i64, bytes: bytes as i64, extra: BTreeMap::new() };
        if self.nodes[stats].data.as_deref() != Some(usage.to_string().as_bytes()) {
            self.write_usage(stats, &stats_path, &usage);
        }
    }

    /// Finds the quotas of a tree that was loaded, and counts.
    pub(crate) fn rebuild_quotas(&mut self) {
        self.quotas.clear();
        let ids = self.id(QUOTA_ROOT).map_or_else(Vec::new, |id| self.subtree(id));
        for id in ids {
            if self.nodes[id].name.as_bytes() == LIMITS.as_bytes()
                && self.nodes[id].children().is_empty()
            {
                let path = self.path_of(id);
                if let Some(subject) = subject(&path, LIMITS) {
                    self.quotas.insert(subject.into());
                    self.count_usage(subject);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_as_upstream_writes_them() {
        for text in [
            "count=-1,bytes=-1",
            "count=4,bytes=5",
            "count=4,bytes=5=;byteHardLimit=10;countHardLimit=-1",
        ] {
            assert_eq!(StatsTrack::parse(text.as_bytes()).to_string(), text);
        }
        let track = StatsTrack::parse(b"count=4,bytes=5=;byteHardLimit=10;countHardLimit=7");
        assert_eq!((track.count, track.bytes), (4, 5));
        assert_eq!((track.byte_hard_limit(), track.count_hard_limit()), (10, 7));
        assert_eq!(StatsTrack::parse(b"bytes=5;count=4").to_string(), "count=4,bytes=5");
    }

    #[test]
    fn any_text_is_read() {
        for text in [
            "",
            "count",
            "count=",
            "=",
            "count=x,,;;bytes",
            "\u{fffd}",
            "count=99999999999999999999",
        ] {
            let track = StatsTrack::parse(text.as_bytes());
            assert_eq!((track.count, track.bytes), (-1, -1), "{text:?}");
        }
        assert_eq!(
            StatsTrack::parse(&[0xff, b',', b'b', b'y', b't', b'e', b's', b'=', b'3']).bytes,
            3
        );
    }

    #[test]
    fn what_a_node_is_about() {
        assert_eq!(subject("/zookeeper/quota/a/b/zookeeper_limits", LIMITS), Some("/a/b"));
        assert_eq!(subject("/zookeeper/quota/zookeeper_limits", LIMITS), None);
        assert_eq!(subject("/zookeeper/quota/a/xzookeeper_limits", LIMITS), None);
        assert_eq!(subject("/zookeeper/quota/a/zookeeper_stats", LIMITS), None);
        assert_eq!(subject("/a/zookeeper_limits", LIMITS), None);
    }
}
