//! The template function `strftime_now`, which prints the date.

use std::fmt::Write as _;

use chrono::format::{Item, StrftimeItems};
use chrono::{DateTime, Local, NaiveDateTime};

/// Returns the current local time: the zone is `TZ`, or else the system's.
pub(super) fn now() -> NaiveDateTime {
    Local::now().naive_local()
}

/// Returns a time, in seconds since 1970, in UTC; the nearest one for times beyond the calendar.
pub(super) fn of_unix(seconds: i64) -> NaiveDateTime {
    let nearest = if seconds < 0 { NaiveDateTime::MIN } else { NaiveDateTime::MAX };
    DateTime::from_timestamp(seconds, 0).map_or(nearest, |moment| moment.naive_utc())
}

/// Formats a time in Python's `strftime` notation and the C locale. The error is the first unknown
/// directive.
pub(super) fn strftime(format: &str, moment: NaiveDateTime) -> Result<String, String> {
    let mut text = String::new();
    let mut rest = format;
    while let Some(start) = rest.find('%') {
        text.push_str(&rest[..start]);
        // A hyphen, as in `%-d`, drops the padding (an extension of glibc).
        let letter = rest[start + 1..].trim_start_matches('-').chars().next();
        let length = if rest[start + 1..].starts_with('-') { 2 } else { 1 } + letter.map_or(0, char::len_utf8);
        let directive = rest.get(start..start + length).unwrap_or(&rest[start..]);
        rest = rest.get(start + length..).unwrap_or_default();
        let ours = match directive {
            "%f" => "%6f",
            // Python's `datetime.now()` has no time zone.
            "%z" | "%Z" => continue,
            other => other,
        };
        let items: Vec<_> = StrftimeItems::new(ours).collect();
        if items.contains(&Item::Error) || write!(text, "{}", moment.format_with_items(items.iter())).is_err() {
            return Err(directive.to_owned());
        }
    }
    Ok(text + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_equal_those_of_python() {
        // python3 -c 'import datetime as d; print(d.datetime.fromtimestamp(N,
        // d.UTC).replace(tzinfo=None).strftime(F))'
        let all = "%Y %y %m %B %b %d %e %j %A %a %w %u %H %I %M %S %f %p %F %T %D %% %-d %-m%Z%z";
        for (seconds, expected) in [
            (
                0,
                "1970 70 01 January Jan 01  1 001 Thursday Thu 4 4 00 12 00 00 000000 AM 1970-01-01 00:00:00 01/01/70 \
                 % 1 1",
            ),
            (
                1_709_210_096,
                "2024 24 02 February Feb 29 29 060 Thursday Thu 4 4 12 12 34 56 000000 PM 2024-02-29 12:34:56 \
                 02/29/24 % 29 2",
            ),
            (
                1_735_689_599,
                "2024 24 12 December Dec 31 31 366 Tuesday Tue 2 2 23 11 59 59 000000 PM 2024-12-31 23:59:59 \
                 12/31/24 % 31 12",
            ),
            (
                -1,
                "1969 69 12 December Dec 31 31 365 Wednesday Wed 3 3 23 11 59 59 000000 PM 1969-12-31 23:59:59 \
                 12/31/69 % 31 12",
            ),
        ] {
            assert_eq!(strftime(all, of_unix(seconds)).unwrap(), expected);
        }
    }

    #[test]
    fn unknown_directives_and_extreme_times_do_not_panic() {
        for (format, directive) in [("%Q", "%Q"), ("100%", "%"), ("%-", "%-"), ("%é", "%é"), ("%d %.3f", "%.")] {
            assert_eq!(strftime(format, of_unix(0)).unwrap_err(), directive);
        }
        for seconds in [i64::MIN, i64::MIN + 1, i64::MAX] {
            strftime("%F %j %A", of_unix(seconds)).unwrap();
        }
    }
}
