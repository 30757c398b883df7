//! Hints for names that are in no table.

/// The least similarity at which a name counts as a misspelling of another one, from 0 to 1.
const SIMILAR: f64 = 0.6;
/// The letters of a given name that are counted, more than any known name may have.
const MOST_LETTERS: usize = 1024;

/// Finds the known name that a given one most resembles, if any is close enough. The measure is the
/// edit distance with exchanges of neighbouring letters (Damerau 1964), divided by the longer length.
///
/// ```
/// use wsd_core::nearest;
/// assert_eq!(nearest("wds", ["draft", "wsd"]), Some("wsd"));
/// assert_eq!(nearest("temprature", ["temperature", "top_p"]), Some("temperature"));
/// assert_eq!(nearest("magic", ["mix", "base"]), None);
/// assert_eq!(nearest(&"wsd".repeat(1 << 20), ["draft", "wsd"]), None);
/// ```
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let similarity = |name: &'a str| (strsim::normalized_damerau_levenshtein(given, name), name);
    // A name much longer or shorter is not similar, whatever its letters; a given one may be very long.
    let (most, length) = (1.0 / SIMILAR, given.chars().take(MOST_LETTERS).count() as f64);
    let may_be = |name: &&str| {
        let ratio = length / name.chars().count() as f64;
        ratio <= most && ratio.recip() <= most
    };
    let found = known.into_iter().filter(may_be).map(similarity).max_by(|one, other| one.0.total_cmp(&other.0));
    found.filter(|(similarity, _)| *similarity >= SIMILAR).map(|(_, name)| name)
}

/// Lists the known names for a hint, the one that was probably meant first.
///
/// ```
/// use wsd_core::known_names;
/// assert_eq!(known_names("bse", ["base", "draft"]), "did you mean `base`? Known are base, draft");
/// assert_eq!(known_names("magic", ["base", "draft"]), "known are base, draft");
/// ```
pub fn known_names<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<_> = known.into_iter().collect();
    let all = known.join(", ");
    match nearest(given, known) {
        Some(name) => format!("did you mean `{name}`? Known are {all}"),
        None => format!("known are {all}"),
    }
}
