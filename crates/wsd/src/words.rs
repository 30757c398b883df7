//! Lists and quantities in words.

/// Alternatives: "a, b or c".
pub(crate) fn any_of(names: &[&str]) -> String {
    match names {
        [names @ .., last] if !names.is_empty() => format!("{} or {last}", names.join(", ")),
        names => names.concat(),
    }
}

/// A size in decimal units: "253 MB", "1.1 GB".
pub(crate) fn bytes(bytes: u64) -> String {
    scaled(bytes, &["bytes", "kB", "MB", "GB", "TB"])
}

/// A count in decimal units: "268 M", "1.5 B".
pub(crate) fn count(count: u64) -> String {
    scaled(count, &["", "k", "M", "B", "T"])
}

/// Two digits below ten, else whole units.
fn scaled(value: u64, units: &[&str]) -> String {
    let (mut value, mut unit) = (value as f64, 0);
    while value >= 999.5 && unit + 1 < units.len() {
        (value, unit) = (value / 1000.0, unit + 1);
    }
    let digits = usize::from(unit > 0 && value < 9.95);
    format!("{value:.digits$} {}", units[unit]).trim_end().to_owned()
}

/// A whole number with a comma between thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let parts = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy);
    parts.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_have_units_and_groups() {
        assert_eq!([1, 253_113_024, 1_117_320_768].map(bytes), ["1 bytes", "253 MB", "1.1 GB"]);
        assert_eq!([999, 268_098_176, 9_960_000_000].map(count), ["999", "268 M", "10 B"]);
        assert_eq!([7, 1234, 32_768, 1_000_000].map(grouped), ["7", "1,234", "32,768", "1,000,000"]);
    }

    #[test]
    fn alternatives_read_as_words() {
        let cases: [(&[&str], &str); 4] =
            [(&[], ""), (&["a"], "a"), (&["a", "b"], "a or b"), (&["a", "b", "c"], "a, b or c")];
        for (names, text) in cases {
            assert_eq!(any_of(names), text);
        }
    }
}
