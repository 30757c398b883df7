//! The template function `strftime_now`, which prints the date.

use std::time::{SystemTime, UNIX_EPOCH};

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const SECONDS_PER_DAY: i64 = 86_400;

/// Returns the current time in seconds since 1970-01-01 00:00 UTC.
pub(super) fn unix_seconds() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX)
}

/// Formats a time, in seconds since 1970 (UTC), in Python's `strftime` notation and the C locale.
/// The error is the first unknown directive.
pub(super) fn strftime(format: &str, unix_seconds: i64) -> Result<String, String> {
    let moment = Moment::new(unix_seconds);
    let mut text = String::new();
    let mut rest = format.chars();
    while let Some(letter) = rest.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        let mut directive = rest.next();
        // A hyphen, as in `%-d`, drops the padding (an extension of glibc).
        let bare = directive == Some('-');
        if bare {
            directive = rest.next();
        }
        let field = directive.and_then(|directive| moment.field(directive));
        let field = field.ok_or_else(|| format!("%{}", directive.map(String::from).unwrap_or_default()))?;
        let digits = field.trim_start_matches(['0', ' ']);
        text.push_str(if bare && !digits.is_empty() { digits } else { &field });
    }
    Ok(text)
}

/// A date and time, in UTC.
struct Moment {
    /// Days since 1970-01-01.
    days: i64,
    /// Seconds since midnight.
    seconds: i64,
    year: i64,
    month: i64,
    day: i64,
}

impl Moment {
    /// Computes the proleptic Gregorian date by counting in eras of 400 years that start on 1 March
    /// (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`).
    fn new(unix_seconds: i64) -> Self {
        let days = unix_seconds.div_euclid(SECONDS_PER_DAY);
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let of_era = shifted.rem_euclid(146_097);
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * of_year + 2) / 153;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        Self {
            days,
            seconds: unix_seconds.rem_euclid(SECONDS_PER_DAY),
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month,
            day: of_year - (153 * from_march + 2) / 5 + 1,
        }
    }

    fn day_of_year(&self) -> i64 {
        let leap = self.year % 4 == 0 && (self.year % 100 != 0 || self.year % 400 == 0);
        let before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334][(self.month - 1) as usize];
        before + self.day + i64::from(leap && self.month > 2)
    }

    /// Formats the field of a directive; `None` if it is unknown.
    fn field(&self, directive: char) -> Option<String> {
        let weekday = (self.days + 4).rem_euclid(7);
        let (hour, minute, second) = (self.seconds / 3600, self.seconds / 60 % 60, self.seconds % 60);
        let hour_of_twelve = (hour + 11) % 12 + 1;
        let day_name = DAYS[weekday as usize];
        let month_name = MONTHS[(self.month - 1) as usize];
        Some(match directive {
            'Y' => self.year.to_string(),
            'y' => format!("{:02}", self.year.rem_euclid(100)),
            'm' => format!("{:02}", self.month),
            'B' => month_name.to_owned(),
            'b' | 'h' => month_name[..3].to_owned(),
            'd' => format!("{:02}", self.day),
            'e' => format!("{:2}", self.day),
            'j' => format!("{:03}", self.day_of_year()),
            'A' => day_name.to_owned(),
            'a' => day_name[..3].to_owned(),
            'w' => weekday.to_string(),
            'u' => if weekday == 0 { 7 } else { weekday }.to_string(),
            'H' => format!("{hour:02}"),
            'I' => format!("{hour_of_twelve:02}"),
            'M' => format!("{minute:02}"),
            'S' => format!("{second:02}"),
            'f' => "000000".to_owned(),
            'p' => if hour < 12 { "AM" } else { "PM" }.to_owned(),
            'F' => format!("{}-{:02}-{:02}", self.year, self.month, self.day),
            'T' => format!("{hour:02}:{minute:02}:{second:02}"),
            'D' => format!("{:02}/{:02}/{:02}", self.month, self.day, self.year.rem_euclid(100)),
            // Python's `datetime.now()` has no time zone.
            'z' | 'Z' => String::new(),
            'n' => "\n".to_owned(),
            't' => "\t".to_owned(),
            '%' => "%".to_owned(),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_equal_those_of_python() {
        // python3 -c 'import datetime as d; print(d.datetime.fromtimestamp(N,
        // d.UTC).replace(tzinfo=None).strftime(F))'
        let all = "%Y %y %m %B %b %d %e %j %A %a %w %u %H %I %M %S %p %F %T %D %% %-d %-m";
        for (seconds, expected) in [
            (0, "1970 70 01 January Jan 01  1 001 Thursday Thu 4 4 00 12 00 00 AM 1970-01-01 00:00:00 01/01/70 % 1 1"),
            (
                1_709_210_096,
                "2024 24 02 February Feb 29 29 060 Thursday Thu 4 4 12 12 34 56 PM 2024-02-29 12:34:56 02/29/24 \
                 % 29 2",
            ),
            (
                1_735_689_599,
                "2024 24 12 December Dec 31 31 366 Tuesday Tue 2 2 23 11 59 59 PM 2024-12-31 23:59:59 12/31/24 \
                 % 31 12",
            ),
            (
                -1,
                "1969 69 12 December Dec 31 31 365 Wednesday Wed 3 3 23 11 59 59 PM 1969-12-31 23:59:59 12/31/69 \
                 % 31 12",
            ),
        ] {
            assert_eq!(strftime(all, seconds).unwrap(), expected);
        }
    }

    #[test]
    fn unknown_directives_and_extreme_times_do_not_panic() {
        assert_eq!(strftime("%Q", 0).unwrap_err(), "%Q");
        assert_eq!(strftime("100%", 0).unwrap_err(), "%");
        for seconds in [i64::MIN, i64::MIN + 1, i64::MAX] {
            strftime("%F %j %A", seconds).unwrap();
        }
    }
}
