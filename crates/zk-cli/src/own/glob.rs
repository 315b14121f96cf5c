//! Shell patterns: `*`, `?`, `[a-z]`, `[!a-z]`, and a backslash before what stands for itself.

/// Whether all of `text` matches `pattern`; `*` matches a slash, too.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    // Where the last star stands, and how much of the text it has taken.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&'*') {
            star = Some((p, t));
            p += 1;
        } else if let Some(length) = one(&pattern[p..], text[t]) {
            p += length;
            t += 1;
        } else if let Some((at, taken)) = star {
            star = Some((at, taken + 1));
            (p, t) = (at + 1, taken + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// How much of the pattern's start matches this one character.
fn one(pattern: &[char], c: char) -> Option<usize> {
    match (pattern.first()?, pattern.get(1)) {
        ('?', _) => Some(1),
        ('\\', Some(escaped)) => (*escaped == c).then_some(2),
        ('[', _) => match set(&pattern[1..], c) {
            Some((length, inside)) => inside.then_some(length + 1),
            None => (c == '[').then_some(1), // no end: it stands for itself
        },
        (plain, _) => (*plain == c).then_some(1),
    }
}

/// A set behind its bracket: its length with the closing one, and whether `c` is in it.
fn set(set: &[char], c: char) -> Option<(usize, bool)> {
    let negated = matches!(set.first(), Some('!' | '^'));
    let start = usize::from(negated);
    // A bracket that closes at once is a member.
    let end = start + 1 + set.get(start + 1..)?.iter().position(|c| *c == ']')?;
    let members = &set[start..end];
    let mut inside = false;
    let mut at = 0;
    while at < members.len() {
        if at + 2 < members.len() && members[at + 1] == '-' {
            inside |= (members[at]..=members[at + 2]).contains(&c);
            at += 3;
        } else {
            inside |= members[at] == c;
            at += 1;
        }
    }
    Some((end + 1, inside != negated))
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn as_a_shell_matches_names() {
        for (pattern, yes, no) in [
            ("abc", "abc", "abcd"),
            ("*", "", "\0never"),
            ("lock-*", "lock-0000000001", "block-1"),
            ("*-lock-*", "_c_1-lock-7", "_c_1-latch-7"),
            ("a?c", "aüc", "ac"),
            ("[a-c]x", "bx", "dx"),
            ("[!a-c]x", "dx", "bx"),
            ("[]x]", "]", "y"),
            ("[-a]", "-", "b"),
            ("a[", "a[", "a"),
            (r"\*", "*", "x"),
            ("*a*b*c*", "xxaxxbxxcxx", "xxcxxbxxaxx"),
            ("/a/*/c", "/a/b/d/c", "/a/c"),
        ] {
            assert!(matches(pattern, yes), "{pattern} {yes}");
            assert!(!matches(pattern, no) || pattern == "*", "{pattern} {no}");
        }
        assert!(!matches("", "a") && matches("", ""));
        // No time is lost over many stars.
        assert!(!matches(&"a*".repeat(30), &format!("{}b", "a".repeat(29))));
    }
}
