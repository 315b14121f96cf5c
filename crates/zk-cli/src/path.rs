/// Why a path is not one, in the words of `PathUtils.validatePath`; positions count UTF-16 units.
pub(crate) fn check(path: &str) -> Result<(), String> {
    if path.is_empty() {
        return Err("Path length must be > 0".to_owned());
    }
    if !path.starts_with('/') {
        return Err("Path must start with / character".to_owned());
    }
    if path.len() == 1 {
        return Ok(());
    }
    if path.ends_with('/') {
        return Err("Path must not end with / character".to_owned());
    }
    let units: Vec<u16> = path.encode_utf16().collect();
    const SLASH: u16 = b'/' as u16;
    const DOT: u16 = b'.' as u16;
    let at = |index: usize| units.get(index).copied();
    for (index, unit) in units.iter().copied().enumerate().skip(1) {
        let before = units[index - 1];
        let ends = matches!(at(index + 1), None | Some(SLASH));
        let reason = match unit {
            0 => "null character not allowed",
            SLASH if before == SLASH => "empty node name specified",
            DOT if before == DOT && index >= 2 && units[index - 2] == SLASH && ends => {
                "relative paths not allowed"
            }
            DOT if before == SLASH && ends => "relative paths not allowed",
            1..=0x1f | 0x7f..=0x9f | 0xd800..=0xf8ff | 0xfff0..=0xffff => "invalid character",
            _ => continue, // any other character is fine
        };
        return Err(format!("Invalid path string \"{path}\" caused by {reason} @{index}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn agrees_with_the_protocol_and_says_where() {
        let paths = [
            "/",
            "/a",
            "/a..b",
            "/...",
            "/.a/a.",
            "/ä b",
            "",
            "a",
            "/a/",
            "//",
            "/a//b",
            "/.",
            "/a/..",
            "/a/./b",
            "/a\u{1}",
            "/😀",
            "/\u{fff0}",
            "/..",
            "/a/../b",
        ];
        for path in paths {
            assert_eq!(check(path).is_ok(), zk_proto::path::is_valid(path), "{path:?}");
        }
        let is = |path: &str, reason: &str| {
            assert_eq!(
                check(path),
                Err(format!("Invalid path string \"{path}\" caused by {reason}"))
            );
        };
        is("/a/../b", "relative paths not allowed @4");
        is("/a/./b", "relative paths not allowed @3");
        is("/ä//b", "empty node name specified @3");
        is("/a\u{7f}", "invalid character @2");
    }
}
