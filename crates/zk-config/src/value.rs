//! Values checked against their kind.

use crate::key::{Kind, range};

/// A value that fits its kind.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
}

/// What [`parse_value`] found.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Checked {
    /// It fits.
    Good(Value),
    /// ZooKeeper reads it in a surprising way, as this value; the text says how.
    Odd(Value, String),
    /// It does not fit; the text says what is wrong and what is allowed.
    Bad(String),
}

/// Checks `text` against `kind`. `lenient` for keys that ZooKeeper reads as system properties:
/// there any text is a boolean (everything but `true` is false) and numbers may be hexadecimal or
/// octal (`Integer.decode`).
pub(crate) fn parse_value(kind: Kind, text: &str, default: &str, lenient: bool) -> Checked {
    match kind {
        Kind::Bool => match text.to_ascii_lowercase().as_str() {
            "true" => Checked::Good(Value::Bool(true)),
            "false" => Checked::Good(Value::Bool(false)),
            _ if lenient => Checked::Odd(
                Value::Bool(false),
                format!("`{text}` counts as false; only `true` switches it on"),
            ),
            _ => Checked::Bad(format!("`{text}` is neither `true` nor `false`")),
        },
        Kind::YesNo => match text {
            "yes" => Checked::Good(Value::Bool(true)),
            "no" => Checked::Good(Value::Bool(false)),
            _ => Checked::Odd(
                Value::Bool(default == "yes"),
                format!("`{text}` counts as `{default}`; write `yes` or `no`"),
            ),
        },
        Kind::Int { min, max } => match parse_int(text, lenient) {
            Some(number) if (min..=max).contains(&number) => Checked::Good(Value::Int(number)),
            found => {
                let problem =
                    if found.is_some() { "is out of range" } else { "is not a whole number" };
                let allowed = match range(min, max) {
                    any if any.is_empty() => "a whole number".to_owned(),
                    bounds => bounds,
                };
                Checked::Bad(format!("`{text}` {problem}; allowed: {allowed}"))
            }
        },
        Kind::Float { min, max } => match text.parse::<f64>() {
            Ok(number) if (min..=max).contains(&number) => Checked::Good(Value::Float(number)),
            Ok(_) => Checked::Bad(format!("`{text}` is out of range; allowed: {min} to {max}")),
            Err(_) => Checked::Bad(format!("`{text}` is not a decimal number such as 0.5")),
        },
        Kind::Interval => match parse_interval_ms(text) {
            Some(ms) => Checked::Good(Value::Int(ms)),
            None => Checked::Bad(format!(
                "`{text}` is not an interval; allowed: a number of hours, or a number with ms, s, m, h or d"
            )),
        },
        Kind::OneOf(words) => match words.iter().find(|word| word.eq_ignore_ascii_case(text)) {
            Some(word) => Checked::Good(Value::Text((*word).to_owned())),
            None => Checked::Bad(format!("`{text}` is unknown; allowed: {}", words.join(", "))),
        },
        Kind::Path | Kind::Host | Kind::Class if text.is_empty() => {
            Checked::Bad("the value is empty".to_owned())
        }
        Kind::List
        | Kind::Text
        | Kind::Secret
        | Kind::Path
        | Kind::Host
        | Kind::Class
        | Kind::Member
        | Kind::Group => Checked::Good(Value::Text(text.to_owned())),
    }
}

/// `Integer.parseInt`; with `decode` also `0x1f`, `#1f` and octal `017`, as `Integer.decode`.
fn parse_int(text: &str, decode: bool) -> Option<i64> {
    if !decode {
        return text.parse().ok();
    }
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let hex = digits
        .strip_prefix("0x")
        .or_else(|| digits.strip_prefix("0X"))
        .or_else(|| digits.strip_prefix('#'));
    let number = match (hex, digits.strip_prefix('0')) {
        (Some(hex), _) if hex.starts_with(['+', '-']) => return None,
        (Some(hex), _) => i64::from_str_radix(hex, 16).ok()?,
        (None, Some(octal)) if octal.starts_with(['+', '-']) => return None,
        (None, Some(octal)) if !octal.is_empty() => i64::from_str_radix(octal, 8).ok()?,
        (None, _) => digits.parse().ok()?,
    };
    Some(if negative { -number } else { number })
}

/// `Time.parseTimeInterval`, with hours for a bare number as `autopurge.purgeInterval` has them.
fn parse_interval_ms(text: &str) -> Option<i64> {
    const HOUR_MS: i64 = 3_600_000;
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit_ms = match lower.get(digits.len()..)? {
        "" | "h" => HOUR_MS,
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "d" => 24 * HOUR_MS,
        _ => return None,
    };
    digits.parse::<i32>().ok().map(|number| i64::from(number) * unit_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn int(text: &str, lenient: bool) -> Option<i64> {
        match parse_value(Kind::Int { min: i64::MIN, max: i64::MAX }, text, "", lenient) {
            Checked::Good(Value::Int(number)) => Some(number),
            Checked::Bad(_) => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn numbers() {
        for (text, plain, decoded) in [
            ("0", Some(0), Some(0)),
            ("+7", Some(7), Some(7)),
            ("-1", Some(-1), Some(-1)),
            ("010", Some(10), Some(8)),
            ("0x10", None, Some(16)),
            ("-0X10", None, Some(-16)),
            ("#ff", None, Some(255)),
            ("0x", None, None),
            ("09", Some(9), None),
            ("1_000", None, None),
            ("4M", None, None),
            ("", None, None),
            ("--1", None, None),
            ("0x-1", None, None),
            ("+-1", None, None),
            ("99999999999999999999", None, None),
        ] {
            assert_eq!(int(text, false), plain, "{text}");
            assert_eq!(int(text, true), decoded, "{text}");
        }
    }

    #[test]
    fn bounds_are_named() {
        let port = Kind::Int { min: 0, max: 65_535 };
        assert_eq!(
            parse_value(port, "65536", "", false),
            Checked::Bad("`65536` is out of range; allowed: 0 to 65535".into())
        );
        assert_eq!(
            parse_value(port, "2181x", "", false),
            Checked::Bad("`2181x` is not a whole number; allowed: 0 to 65535".into())
        );
        let positive = Kind::Int { min: 1, max: i64::from(i32::MAX) };
        assert_eq!(
            parse_value(positive, "0", "", false),
            Checked::Bad("`0` is out of range; allowed: 1 or more".into())
        );
        assert_eq!(
            parse_value(positive, "2147483647", "", false),
            Checked::Good(Value::Int(2_147_483_647))
        );
        assert!(matches!(parse_value(positive, "2147483648", "", false), Checked::Bad(_)));
    }

    #[test]
    fn booleans() {
        for lenient in [false, true] {
            for (text, value) in [("true", true), ("False", false), ("TRUE", true)] {
                assert_eq!(
                    parse_value(Kind::Bool, text, "", lenient),
                    Checked::Good(Value::Bool(value))
                );
            }
        }
        assert!(matches!(parse_value(Kind::Bool, "yes", "", false), Checked::Bad(_)));
        assert!(matches!(
            parse_value(Kind::Bool, "yes", "", true),
            Checked::Odd(Value::Bool(false), _)
        ));
        for (text, default, value) in [
            ("no", "yes", false),
            ("false", "yes", true),
            ("true", "no", false),
            ("YES", "no", false),
        ] {
            match parse_value(Kind::YesNo, text, default, true) {
                Checked::Good(found) => assert_eq!(found, Value::Bool(value), "{text}"),
                Checked::Odd(found, _) => {
                    assert!(text != "no" && found == Value::Bool(value), "{text}")
                }
                Checked::Bad(text) => panic!("{text}"),
            }
        }
    }

    #[test]
    fn intervals() {
        for (text, ms) in [
            ("0", Some(0)),
            ("24", Some(86_400_000)),
            ("1h", Some(3_600_000)),
            ("30M", Some(1_800_000)),
            ("5s", Some(5000)),
            ("250ms", Some(250)),
            ("2d", Some(172_800_000)),
            ("-1", Some(-3_600_000)),
            ("1w", None),
            ("h", None),
            ("", None),
            ("1.5h", None),
        ] {
            assert_eq!(parse_interval_ms(text), ms, "{text}");
        }
    }

    #[test]
    fn words_and_decimals() {
        let roles = Kind::OneOf(&["participant", "observer"]);
        assert_eq!(
            parse_value(roles, "Observer", "", false),
            Checked::Good(Value::Text("observer".into()))
        );
        assert_eq!(
            parse_value(roles, "voter", "", false),
            Checked::Bad("`voter` is unknown; allowed: participant, observer".into())
        );
        let ratio = Kind::Float { min: 0.0, max: 1.0 };
        assert_eq!(parse_value(ratio, "0.25", "", true), Checked::Good(Value::Float(0.25)));
        for bad in ["1.5", "NaN", "x"] {
            assert!(matches!(parse_value(ratio, bad, "", true), Checked::Bad(_)), "{bad}");
        }
        assert!(matches!(parse_value(Kind::Path, "", "", true), Checked::Bad(_)));
    }
}
