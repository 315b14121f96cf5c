//! Local time as `java.util.Date.toString` prints it. The standard library knows no time zones, so the
//! system's zone file is read here (RFC 8536).

use std::fs;
use std::sync::OnceLock;

const DAY: i64 = 86_400;

/// `Sat Nov 22 08:40:39 UTC 2025` for a time in ms since 1970.
pub(crate) fn format(ms: i64) -> String {
    static ZONE: OnceLock<Zone> = OnceLock::new();
    format_in(ms, ZONE.get_or_init(Zone::local))
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most 11")]
fn format_in(ms: i64, zone: &Zone) -> String {
    let seconds = ms.div_euclid(1000);
    let Offset { seconds: offset, name } = zone.at(seconds);
    let local = seconds.saturating_add(*offset);
    let (days, time) = (local.div_euclid(DAY), local.rem_euclid(DAY));
    let (year, month, day) = civil(days);
    let weekday = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][days.rem_euclid(7) as usize];
    let months =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = months[(month - 1) as usize];
    format!(
        "{weekday} {month} {day:02} {:02}:{:02}:{:02} {name} {year}",
        time / 3600,
        time / 60 % 60,
        time % 60
    )
}

/// Year, month and day of a number of days since 1970 (the usual algorithm on eras of 400 years).
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, day)
}

/// Days since 1970 of a date.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let yoe = year.rem_euclid(400);
    let doy = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Offset {
    /// East of Greenwich.
    seconds: i64,
    name: String,
}

/// When an offset changes in every year: `M3.5.0/2`, `J60`, `59`.
#[derive(Debug, Clone, Copy)]
enum Rule {
    /// Month, week (5: the last), weekday (0: Sunday).
    Month(i64, i64, i64),
    /// Day of the year from 1, 29 February never counted.
    Julian(i64),
    /// Day of the year from 0.
    Day(i64),
}

#[derive(Debug, Clone)]
struct Summer {
    offset: Offset,
    start: (Rule, i64),
    end: (Rule, i64),
}

#[derive(Debug, Clone)]
struct Zone {
    /// From when on which offset holds.
    changes: Vec<(i64, usize)>,
    offsets: Vec<Offset>,
    /// What holds after the last change.
    standard: Offset,
    summer: Option<Summer>,
}

impl Zone {
    fn utc() -> Self {
        let standard = Offset { seconds: 0, name: "UTC".to_owned() };
        Self { changes: Vec::new(), offsets: vec![standard.clone()], standard, summer: None }
    }

    fn local() -> Self {
        let name = std::env::var("TZ").ok().filter(|name| !name.is_empty());
        let zone = match name.as_deref().map(|name| name.trim_start_matches(':')) {
            None => fs::read("/etc/localtime").ok().and_then(|file| Self::parse(&file)),
            Some(path) if path.starts_with('/') => {
                fs::read(path).ok().and_then(|file| Self::parse(&file))
            }
            Some(name) => fs::read(format!("/usr/share/zoneinfo/{name}"))
                .ok()
                .and_then(|file| Self::parse(&file))
                .or_else(|| Self::from_rule(name)),
        };
        zone.unwrap_or_else(Self::utc)
    }

    fn from_rule(text: &str) -> Option<Self> {
        let (standard, summer) = posix(text)?;
        Some(Self { changes: Vec::new(), offsets: vec![standard.clone()], standard, summer })
    }

    /// Reads a TZif file of version 2 or later.
    fn parse(file: &[u8]) -> Option<Self> {
        let header = |at: usize| -> Option<[usize; 6]> {
            if file.get(at..at + 4)? != b"TZif" {
                return None;
            }
            let mut counts = [0; 6];
            for (n, count) in counts.iter_mut().enumerate() {
                let bytes = file.get(at + 20 + 4 * n..at + 24 + 4 * n)?;
                *count = u32::from_be_bytes(bytes.try_into().ok()?) as usize;
            }
            Some(counts)
        };
        // The first block is of 32-bit times: skipped.
        let [isut, isstd, leap, time, kind, chars] = header(0)?;
        let second = 44 + time * 5 + kind * 6 + chars + leap * 8 + isstd + isut;
        let [isut, isstd, leap, time, kind, chars] = header(second)?;
        let times = second + 44;
        let kinds = times + time * 9;
        let names = kinds + kind * 6;
        let footer = names + chars + leap * 12 + isstd + isut;
        let names = file.get(names..names + chars)?;
        let offsets = (0..kind)
            .map(|n| {
                let entry = file.get(kinds + 6 * n..kinds + 6 * n + 6)?;
                let seconds = i64::from(i32::from_be_bytes(entry[..4].try_into().ok()?));
                let name = names.get(entry[5] as usize..)?.split(|byte| *byte == 0).next()?;
                Some(Offset { seconds, name: String::from_utf8_lossy(name).into_owned() })
            })
            .collect::<Option<Vec<_>>>()?;
        let changes = (0..time)
            .map(|n| {
                let at = file.get(times + 8 * n..times + 8 * n + 8)?;
                let kind = *file.get(times + 8 * time + n)? as usize;
                (kind < offsets.len()).then_some((i64::from_be_bytes(at.try_into().ok()?), kind))
            })
            .collect::<Option<Vec<_>>>()?;
        let footer = std::str::from_utf8(file.get(footer..)?).ok()?.trim_matches('\n');
        let last = changes.last().map_or(0, |(_, kind)| *kind);
        let (standard, summer) =
            posix(footer).or_else(|| Some((offsets.get(last)?.clone(), None)))?;
        Some(Self { changes, offsets, standard, summer })
    }

    fn at(&self, seconds: i64) -> &Offset {
        let after = self.changes.partition_point(|(from, _)| *from <= seconds);
        if after < self.changes.len() {
            // Before the first change: the first offset.
            let kind = if after == 0 { 0 } else { self.changes[after - 1].1 };
            return &self.offsets[kind];
        }
        let Some(summer) = &self.summer else { return &self.standard };
        let (year, ..) = civil((seconds + self.standard.seconds).div_euclid(DAY));
        let start = moment(year, summer.start) - self.standard.seconds;
        let end = moment(year, summer.end) - summer.offset.seconds;
        // South of the equator summer spans the turn of the year.
        let is_summer = if start < end {
            (start..end).contains(&seconds)
        } else {
            !(end..start).contains(&seconds)
        };
        if is_summer { &summer.offset } else { &self.standard }
    }
}

/// Local seconds since 1970 of a rule in a year.
fn moment(year: i64, (rule, time): (Rule, i64)) -> i64 {
    let leap = days(year, 3, 1) - days(year, 2, 28) == 2;
    let day = match rule {
        Rule::Julian(day) => days(year, 1, 1) + day - 1 + i64::from(leap && day >= 60),
        Rule::Day(day) => days(year, 1, 1) + day,
        Rule::Month(month, week, weekday) => {
            let first = days(year, month, 1);
            let next = if month == 12 { days(year + 1, 1, 1) } else { days(year, month + 1, 1) };
            // 1 January 1970 was a Thursday.
            let day = first + (weekday - (first + 4)).rem_euclid(7) + (week - 1) * 7;
            if day < next { day } else { day - 7 }
        }
    };
    day * DAY + time
}

/// `CET-1CEST,M3.5.0,M10.5.0/3`: the standard offset, and summer time if there is one.
fn posix(text: &str) -> Option<(Offset, Option<Summer>)> {
    let mut rest = text;
    let name = take_name(&mut rest)?;
    let standard = Offset { seconds: -take_time(&mut rest)?, name };
    if rest.is_empty() {
        return Some((standard, None));
    }
    let name = take_name(&mut rest)?;
    let seconds =
        if rest.starts_with(',') { standard.seconds + 3600 } else { -take_time(&mut rest)? };
    let mut parts = rest.strip_prefix(',')?.split(',').map(|part| {
        let (rule, mut time) = part.split_once('/').unwrap_or((part, "2"));
        Some((rule_of(rule)?, take_time(&mut time)?))
    });
    let (start, end) = (parts.next()??, parts.next()??);
    Some((standard, Some(Summer { offset: Offset { seconds, name }, start, end })))
}

fn take_name(rest: &mut &str) -> Option<String> {
    let (name, after) = match rest.strip_prefix('<') {
        Some(quoted) => quoted.split_once('>')?,
        None => rest.split_at(rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len())),
    };
    *rest = after;
    (!name.is_empty()).then(|| name.to_owned())
}

/// `[+-]hh[:mm[:ss]]`, in seconds.
fn take_time(rest: &mut &str) -> Option<i64> {
    let sign = if rest.starts_with('-') { -1 } else { 1 };
    let text = rest.trim_start_matches(['+', '-']);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != ':').unwrap_or(text.len());
    let mut seconds = 0;
    for (unit, part) in [3600, 60, 1].iter().zip(text[..end].split(':')) {
        seconds += unit * part.parse::<i64>().ok()?;
    }
    *rest = &text[end..];
    Some(sign * seconds)
}

fn rule_of(text: &str) -> Option<Rule> {
    if let Some(month) = text.strip_prefix('M') {
        let mut parts = month.split('.').map(|part| part.parse::<i64>().ok());
        let (month, week, weekday) = (parts.next()??, parts.next()??, parts.next()??);
        return ((1..=12).contains(&month) && (1..=5).contains(&week))
            .then_some(Rule::Month(month, week, weekday));
    }
    match text.strip_prefix('J') {
        Some(day) => day.parse().ok().map(Rule::Julian),
        None => text.parse().ok().map(Rule::Day),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utc_as_java_prints_it() {
        let utc = Zone::utc();
        assert_eq!(format_in(0, &utc), "Thu Jan 01 00:00:00 UTC 1970");
        assert_eq!(format_in(1_763_800_839_999, &utc), "Sat Nov 22 08:40:39 UTC 2025");
        assert_eq!(format_in(951_782_400_000, &utc), "Tue Feb 29 00:00:00 UTC 2000");
        assert_eq!(format_in(-1, &utc), "Wed Dec 31 23:59:59 UTC 1969");
    }

    #[test]
    fn summer_time_by_rule() {
        let berlin = Zone::from_rule("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        assert_eq!(format_in(1_743_296_399_000, &berlin), "Sun Mar 30 01:59:59 CET 2025");
        assert_eq!(format_in(1_743_296_400_000, &berlin), "Sun Mar 30 03:00:00 CEST 2025");
        assert_eq!(format_in(1_761_440_399_000, &berlin), "Sun Oct 26 02:59:59 CEST 2025");
        assert_eq!(format_in(1_761_440_400_000, &berlin), "Sun Oct 26 02:00:00 CET 2025");
        let sydney = Zone::from_rule("AEST-10AEDT,M10.1.0,M4.1.0/3").unwrap();
        assert_eq!(format_in(1_767_225_600_000, &sydney), "Thu Jan 01 11:00:00 AEDT 2026");
        assert_eq!(format_in(1_751_328_000_000, &sydney), "Tue Jul 01 10:00:00 AEST 2025");
        let tehran = Zone::from_rule("<+0330>-3:30").unwrap();
        assert_eq!(format_in(0, &tehran), "Thu Jan 01 03:30:00 +0330 1970");
    }

    #[test]
    fn zone_files_are_read() {
        // A file with one change, from +01:00 LMT to the rule's CET, at 1000 s.
        let mut file = Vec::new();
        for (version, width) in [(b'2', 4usize), (b'2', 8)] {
            file.extend_from_slice(b"TZif");
            file.push(version);
            file.extend_from_slice(&[0; 15]);
            for count in [0u32, 0, 0, 1, 2, 8] {
                file.extend_from_slice(&count.to_be_bytes());
            }
            let at = 1000i64.to_be_bytes();
            file.extend_from_slice(&at[8 - width..]);
            file.push(1);
            file.extend_from_slice(&[0, 0, 0x0e, 0x10, 0, 0]);
            file.extend_from_slice(&[0, 0, 0x0e, 0x10, 0, 4]);
            file.extend_from_slice(b"LMT\0CET\0");
        }
        file.extend_from_slice(b"\nCET-1\n");
        let zone = Zone::parse(&file).unwrap();
        assert_eq!(format_in(999_000, &zone), "Thu Jan 01 01:16:39 LMT 1970");
        assert_eq!(format_in(1_000_000, &zone), "Thu Jan 01 01:16:40 CET 1970");
        for end in 0..file.len() - 7 {
            assert!(Zone::parse(&file[..end]).is_none(), "{end} bytes were accepted");
        }
    }
}
