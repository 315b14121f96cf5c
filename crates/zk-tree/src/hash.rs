//! Hashing of paths and ACLs. Not cryptographic; a secret seed makes collisions hard to find.

const K0: u64 = 0x9e37_79b9_7f4a_7c15;
const K1: u64 = 0xd6e8_feb8_6659_fd93;
const K2: u64 = 0xa076_1d64_78bd_642f;

/// Both halves of the product, folded: every input bit reaches every output bit.
#[allow(clippy::cast_possible_truncation, reason = "the halves")]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("callers pass eight bytes"))
}

fn half(bytes: &[u8]) -> u64 {
    u64::from(u32::from_le_bytes(bytes.try_into().expect("callers pass four bytes")))
}

/// The hash of `bytes` that continues from `seed`.
pub(crate) fn hash_bytes(seed: u64, bytes: &[u8]) -> u64 {
    let mut state = seed ^ K0;
    let mut rest = bytes;
    while rest.len() > 16 {
        let (block, tail) = rest.split_at(16);
        state = fold(word(&block[..8]) ^ K1, word(&block[8..]) ^ state);
        rest = tail;
    }
    let len = rest.len();
    let (a, b) = match len {
        8.. => (word(&rest[..8]), word(&rest[len - 8..])),
        4.. => (half(&rest[..4]), half(&rest[len - 4..])),
        1.. => (
            (u64::from(rest[0]) << 16) | (u64::from(rest[len / 2]) << 8) | u64::from(rest[len - 1]),
            0,
        ),
        0 => (0, 0),
    };
    fold(fold(a ^ K1, b ^ state) ^ (bytes.len() as u64), K2)
}

/// The hash of a number.
pub(crate) fn hash_u64(seed: u64, value: u64) -> u64 {
    fold(value ^ seed ^ K0, K1)
}

/// Calls `each(hash, prefix)` for every proper ancestor of `path` from the root down, then for
/// `path` itself. The hashes are chained segment by segment, so the cost is the path's length and
/// not its square.
pub(crate) fn for_each_prefix(seed: u64, path: &str, mut each: impl FnMut(u64, &str)) {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') || bytes.len() == 1 {
        each(hash_path(seed, path), path);
        return;
    }
    let mut state = hash_bytes(seed, b"/");
    each(state, "/");
    let mut start = 1;
    for (at, _) in path.match_indices('/').skip(1) {
        state = hash_bytes(state, &bytes[start..at]);
        each(state, &path[..at]);
        start = at + 1;
    }
    each(hash_bytes(state, &bytes[start..]), path);
}

/// What [`for_each_prefix`] gives for the whole path.
pub(crate) fn hash_path(seed: u64, path: &str) -> u64 {
    let root = hash_bytes(seed, b"/");
    match path.strip_prefix('/') {
        Some("") => root,
        Some(rest) => {
            rest.split('/').fold(root, |state, segment| hash_bytes(state, segment.as_bytes()))
        }
        None => hash_bytes(seed ^ K2, path.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_hash_as_paths_of_their_own() {
        for path in
            ["/", "/a", "/a/b", "/long-segment-of-more-than-16/b//c", "/a/", "", "relative/x"]
        {
            let mut seen = Vec::new();
            for_each_prefix(7, path, |hash, prefix| {
                assert_eq!(hash, hash_path(7, prefix), "{prefix:?} of {path:?}");
                seen.push(prefix.to_owned());
            });
            assert_eq!(seen.last().map(String::as_str), Some(path));
        }
        let mut seen = Vec::new();
        for_each_prefix(7, "/a/b/c", |_, prefix| seen.push(prefix.to_owned()));
        assert_eq!(seen, ["/", "/a", "/a/b", "/a/b/c"]);
    }

    #[test]
    fn hashes_of_similar_inputs_spread() {
        let mut seen = std::collections::BTreeSet::new();
        for i in 0..20_000 {
            seen.insert(hash_bytes(1, format!("/node-{i:010}").as_bytes()) >> 32);
        }
        // Twenty thousand of 2^32: hardly a collision.
        assert!(seen.len() > 19_995, "{}", seen.len());
        for len in 0..40 {
            let a = vec![0_u8; len];
            assert_ne!(hash_bytes(1, &a), hash_bytes(1, &vec![0; len + 1]));
            assert_ne!(hash_bytes(1, &a), hash_bytes(2, &a));
        }
    }
}
