//! "Did you mean": the nearest of a list of words.

/// Edits that turn `a` into `b`: insert, delete, replace, or swap two neighbours (optimal string
/// alignment).
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let width = b.len() + 1;
    let mut before: Vec<usize> = vec![0; width];
    let mut above: Vec<usize> = (0..width).collect();
    for (row, from) in a.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, to) in b.iter().enumerate() {
            let at =
                |line: &[usize], index: usize| line.get(index).copied().unwrap_or(usize::MAX / 2);
            let mut best = (at(&above, column + 1) + 1).min(at(&current, column) + 1);
            best = best.min(at(&above, column) + usize::from(from != to));
            let swapped = row > 0
                && column > 0
                && a.get(row - 1) == Some(to)
                && b.get(column - 1) == Some(from);
            if swapped {
                best = best.min(at(&before, column - 1) + 1);
            }
            current.push(best);
        }
        before = above;
        above = current;
    }
    above.last().copied().unwrap_or(0)
}

/// Lower case without `.`, `_` and `-`: `MAX_CLIENT_CNXNS` and `maxClientCnxns` are the same word.
fn normal(word: &str) -> String {
    word.chars().filter(|c| !matches!(c, '.' | '_' | '-')).flat_map(char::to_lowercase).collect()
}

/// The candidate nearest to `word`, when one is near enough to be what was meant.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let wanted = normal(word);
    if wanted.is_empty() {
        return None;
    }
    let reach = match wanted.len() {
        0..=3 => 1,
        4..=7 => 2,
        _ => 3,
    };
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        let have = normal(candidate);
        // A section left out, such as `purgeInterval` for `autopurge.purgeInterval`, is nearer than
        // any misspelling.
        let section_missing = candidate.len() > word.len()
            && candidate.to_lowercase().ends_with(&format!(".{}", word.to_lowercase()));
        let score = if have == wanted {
            0
        } else if section_missing {
            1
        } else if have.len().abs_diff(wanted.len()) > reach {
            continue;
        } else {
            distance(&wanted, &have) + 1
        };
        if score <= reach + 1 && best.is_none_or(|(found, _)| score < found) {
            best = Some((score, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, expected) in [
            ("", "", 0),
            ("a", "", 1),
            ("", "ab", 2),
            ("tickTime", "tickTime", 0),
            ("tickTme", "tickTime", 1),
            ("tikcTime", "tickTime", 1),
            ("datDir", "dataDir", 1),
            ("kitten", "sitting", 3),
            ("ca", "abc", 3),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn nearest_word() {
        let words = [
            "dataDir",
            "dataLogDir",
            "clientPort",
            "autopurge.purgeInterval",
            "maxClientCnxns",
            "maxCnxns",
        ];
        for (typed, meant) in [
            ("datadir", Some("dataDir")),
            ("dataDri", Some("dataDir")),
            ("dataLogDirs", Some("dataLogDir")),
            ("purgeInterval", Some("autopurge.purgeInterval")),
            ("autopurge.purgeinterval", Some("autopurge.purgeInterval")),
            ("max_client_cnxns", Some("maxClientCnxns")),
            ("maxClientConnections", None),
            ("maxCnxn", Some("maxCnxns")),
            ("port", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, words), meant, "{typed}");
        }
    }
}
