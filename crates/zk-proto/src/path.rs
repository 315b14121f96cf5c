//! Znode paths (`PathUtils.validatePath`).

/// Where the ensemble's configuration is.
pub const CONFIG: &str = "/zookeeper/config";

/// Whether `path` is one that a znode can have: absolute, without empty, `.` or `..` segments,
/// without a slash at its end, and without control, surrogate, private-use or special characters.
/// Java looks at UTF-16 units, so every character beyond the basic plane is a pair of surrogates
/// and refused.
#[must_use]
pub fn is_valid(path: &str) -> bool {
    let Some(rest) = path.strip_prefix('/') else { return false };
    if rest.is_empty() {
        return true;
    }
    rest.split('/').all(|segment| !matches!(segment, "" | "." | ".."))
        && rest.chars().all(is_valid_char)
}

fn is_valid_char(c: char) -> bool {
    // ASCII is nearly all there is.
    matches!(c, '\u{20}'..='\u{7e}' | '\u{a0}'..='\u{d7ff}' | '\u{f900}'..='\u{ffef}')
}

/// The parent's path: `/` for a child of the root, and for the root itself.
#[must_use]
pub fn parent(path: &str) -> &str {
    match path.rfind('/') {
        None | Some(0) => "/",
        Some(at) => path.split_at(at).0,
    }
}

/// The last segment; empty for the root.
#[must_use]
pub fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// The path of `parent`'s child `name`.
#[must_use]
pub fn join(parent: &str, name: &str) -> String {
    if parent == "/" { format!("/{name}") } else { format!("{parent}/{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_upstream_accepts() {
        for path in
            ["/", "/a", "/a/b.c", "/...", "/.a", "/a..", "/ä/日本", "/a b", "/\u{ffef}", "/\u{a0}"]
        {
            assert!(is_valid(path), "{path:?}");
        }
    }

    #[test]
    fn what_upstream_refuses() {
        let bad = [
            "",
            "a",
            "a/b",
            "/a/",
            "//",
            "//a",
            "/a//b",
            "/.",
            "/..",
            "/a/./b",
            "/a/../b",
            "/a/.",
            "/a/..",
            "/\0",
            "/a\u{1}",
            "/\u{1f}",
            "/\u{7f}",
            "/\u{9f}",
            "/\u{e000}",
            "/\u{f8ff}",
            "/\u{fff0}",
            "/\u{ffff}",
            "/\u{fffd}",
            "/😀",
        ];
        for path in bad {
            assert!(!is_valid(path), "{path:?}");
        }
    }

    #[test]
    fn parents_and_names() {
        assert_eq!((parent("/a/b"), name("/a/b")), ("/a", "b"));
        assert_eq!((parent("/a"), name("/a")), ("/", "a"));
        assert_eq!((parent("/"), name("/")), ("/", ""));
        assert_eq!((join("/", "a"), join("/a", "b")), ("/a".to_owned(), "/a/b".to_owned()));
    }
}
